"""Chat completions, `/v1/chat/completions`: OpenAI's format and what engines add to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palegreen.evaluators.sample import ToolCall
from palegreen.evaluators.wire import message
from palegreen.evaluators.wire.reply import Asked, Choice, Chunk, Reply, Usage, error_of
from palegreen.evaluators.wire.shape import count, mapping, numbers, objects, text, texts

_LEGACY = -1  # slot of the old `function_call`
_Slots = dict[tuple[int, int], ToolCall]


def asked(request: dict[str, Any]) -> Asked:
    """What a request asks."""
    return Asked(
        model=text(request.get("model")),
        prompts=[message.messages(request.get("messages"))],
        tools=message.tools(request.get("tools"), request.get("functions")),
        response_format=message.response_format(request),
        contexts=contexts(request),
        n=count(request.get("n")) or 1,
    )


def contexts(request: dict[str, Any]) -> list[str]:
    """Passages that a request marks as such: `documents` (Cohere, vLLM), `metadata.contexts`. Nothing is guessed."""
    found = []
    documents = request.get("documents")
    for document in documents if isinstance(documents, list) else ():
        if isinstance(document, str):
            found.append(document)
        elif isinstance(document, dict):
            inner = mapping(document.get("data")) or document
            found.append(next((body for key in ("text", "snippet", "content") if (body := text(inner.get(key)))), ""))
    return [*filter(None, found), *texts(mapping(request.get("metadata")).get("contexts"))]


def replied(chunks: Iterable[Chunk]) -> Reply:
    """What came back. A response that is no stream is one chunk whose `message` is all there is of it."""
    reply = Reply()
    calls: _Slots = {}
    for data, end in chunks:
        if ("error" in data or "choices" not in data) and (error := error_of(data)):
            reply.error = error
            break
        if not reply.id:
            reply.id = text(data.get("id"))
        if not reply.model:
            reply.model = text(data.get("model"))
        if not reply.fingerprint:
            reply.fingerprint = text(data.get("system_fingerprint"))
        if usage := data.get("usage"):
            reply.usage = Usage.read(usage)
        given = data.get("choices")
        for choice in given if isinstance(given, list) else ():
            if not isinstance(choice, dict):
                continue
            index = count(choice.get("index")) or 0
            held = reply.choices.get(index) or reply.choice(index)
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict) and _grow(held, delta, calls, index):
                reply.first = end if reply.first is None else reply.first
            if reason := choice.get("finish_reason"):
                held.finish_reason = text(reason)
            if logprobs := choice.get("logprobs"):
                _add_logprobs(held, mapping(logprobs))
    return reply


def _grow(choice: Choice, delta: dict[str, Any], calls: _Slots, index: int) -> bool:
    """Add what a delta brings; whether it brought a token."""
    grew = False
    if piece := delta.get("content"):
        choice.text.append(message.content(piece))
        if len(delta) == 1:
            return True
        grew = True
    if piece := text(delta.get("reasoning_content")) or text(delta.get("reasoning")):
        choice.reasoning.append(piece)
        grew = True
    if piece := text(delta.get("refusal")):
        choice.refusal.append(piece)
        grew = True
    if "audio" in delta and (piece := text(mapping(delta["audio"]).get("transcript"))):
        choice.text.append(piece)
        grew = True
    for at, call in enumerate(objects(delta.get("tool_calls"))):
        _grow_call(choice, call, calls, (index, number if isinstance(number := call.get("index"), int) else at))
        grew = True
    if call := mapping(delta.get("function_call")):
        _grow_call(choice, {"function": call}, calls, (index, _LEGACY))
        grew = True
    return grew


def _grow_call(choice: Choice, call: dict[str, Any], calls: _Slots, slot: tuple[int, int]) -> None:
    """Start a call, or add to its arguments. Some servers number every call 0: then a new id is a new call."""
    held = calls.get(slot)
    piece = message.tool_call(call)
    if held is None or ("id" in piece and piece["name"] and held.get("id", piece["id"]) != piece["id"]):
        calls[slot] = piece
        choice.tool_calls.append(piece)
        return
    held["name"] = held["name"] or piece["name"]
    held["arguments"] += piece["arguments"]
    if "id" in piece:
        held.setdefault("id", piece["id"])


def _add_logprobs(choice: Choice, logprobs: dict[str, Any]) -> None:
    tokens = objects(logprobs.get("content")) or objects(logprobs.get("refusal"))
    choice.add_logprobs(numbers([token.get("logprob") for token in tokens]))
