"""The responses API, `/v1/responses`: items in, items out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palegreen.evaluators.sample import Message, ToolCall
from palegreen.evaluators.wire import message
from palegreen.evaluators.wire.chat import contexts
from palegreen.evaluators.wire.reply import Asked, Choice, Chunk, Reply, Usage, error_of
from palegreen.evaluators.wire.shape import mapping, numbers, objects, text

_LAST = ("response.completed", "response.incomplete", "response.failed")
_CALLS = ("function_call", "custom_tool_call")
# Deltas, and the kind of item that each belongs to.
_DELTAS = {
    "response.output_text.delta": "message",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.custom_tool_call_input.delta": "function_call",
}
_Key = int | str
_REASONS = {"max_output_tokens": "length"}


def asked(request: dict[str, Any]) -> Asked:
    """What a request asks; `instructions` come first, as the system's message."""
    given = request.get("input")
    conversation = [Message(role="user", content=given)] if isinstance(given, str) else _conversation(given)
    if instructions := text(request.get("instructions")):
        conversation.insert(0, Message(role="system", content=instructions))
    return Asked(
        model=text(request.get("model")),
        prompts=[conversation],
        tools=message.tools(request.get("tools")),
        response_format=_response_format(mapping(mapping(request.get("text")).get("format"))),
        contexts=contexts(request),
    )


def _conversation(items: object) -> list[Message]:
    made: list[Message] = []
    for item in objects(items):
        kind = text(item.get("type"))
        if kind in _CALLS:
            made.append(Message(role="assistant", content="", tool_calls=[_call(item)]))
        elif kind.endswith("_call_output"):
            output = message.content(item.get("output"))
            made.append(Message(role="tool", content=output, tool_call_id=text(item.get("call_id"))))
        elif "role" in item:
            made.append(message.message(item))
    return made


def _call(item: dict[str, Any]) -> ToolCall:
    return message.tool_call({**item, "id": item.get("call_id") or item.get("id")})


def _response_format(given: dict[str, Any]) -> dict[str, Any] | None:
    """In chat's form, so that a schema is found in one place."""
    if given.get("type") != "json_schema":
        return given or None
    return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}


def replied(chunks: Iterable[Chunk]) -> Reply:
    """What came back: the whole response where there is one, else what the deltas before the cut add up to."""
    reply = Reply()
    whole: dict[str, Any] = {}
    items: dict[_Key, dict[str, Any]] = {}
    pieces: dict[_Key, dict[str, list[str]]] = {}
    for data, end in chunks:
        kind = text(data.get("type"))
        if kind in _DELTAS:
            if piece := text(data.get("delta")):
                pieces.setdefault(_key(data), {}).setdefault(_DELTAS[kind], []).append(piece)
                reply.first = end if reply.first is None else reply.first
        elif kind in ("response.output_item.added", "response.output_item.done"):
            items[_key(data)] = mapping(data.get("item"))
        elif data.get("object") == "response":
            whole = data
        elif isinstance(data.get("response"), dict):
            whole = data["response"]
        elif not kind.startswith("response.") and (error := error_of(data)):
            reply.error = error
            break
        if kind in _LAST:
            break
    reply.id, reply.model = text(whole.get("id")), text(whole.get("model"))
    reply.usage = Usage.read(whole.get("usage"))
    reply.error = reply.error or error_of(whole)
    output = objects(whole.get("output")) or _assembled(items, pieces)
    if output or whole:
        _fill(reply, output, whole)
    return reply


def _key(data: dict[str, Any]) -> _Key:
    """Which item an event is about; llama.cpp gives no `output_index`."""
    index = data.get("output_index")
    return index if isinstance(index, int) else text(data.get("item_id")) or text(mapping(data.get("item")).get("id"))


def _assembled(items: dict[_Key, dict[str, Any]], pieces: dict[_Key, dict[str, list[str]]]) -> list[dict[str, Any]]:
    """Items of a stream that was cut: those that are done as they are, the others with their deltas."""
    made = []
    for key in dict.fromkeys((*items, *pieces)):
        item = items.get(key, {})
        if item.get("status") == "completed":
            made.append(item)
            continue
        for kind, texts in pieces.get(key, {}).items():
            joined = "".join(texts)
            form = {"type": "refusal", "refusal": joined} if kind == "refusal" else {"type": "text", "text": joined}
            filled = {"arguments": joined} if kind == "function_call" else {"content": [form]}
            made.append({"type": "message" if kind == "refusal" else kind, **item, **filled})
    return made


def _fill(reply: Reply, output: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    choice = reply.choice(0)
    for item in output:
        kind = text(item.get("type"))
        if kind == "message":
            _add_message(choice, item)
        elif kind == "reasoning":
            parts = objects(item.get("content")) or objects(item.get("summary"))
            choice.reasoning.append("\n".join(text(part.get("text")) for part in parts))
        elif kind in _CALLS:
            choice.tool_calls.append(_call(item))
        elif kind == "file_search_call":
            found = (text(result.get("text")) for result in objects(item.get("results")))
            reply.contexts.extend(filter(None, found))
    choice.finish_reason = _finish_reason(whole, bool(choice.tool_calls))


def _add_message(choice: Choice, item: dict[str, Any]) -> None:
    for part in objects(item.get("content")):
        if "refusal" in part:
            choice.refusal.append(text(part["refusal"]))
        else:
            choice.text.append(text(part.get("text")))
        choice.add_logprobs(numbers([token.get("logprob") for token in objects(part.get("logprobs"))]))


def _finish_reason(whole: dict[str, Any], called: bool) -> str:
    """In chat's words; empty while the response is not finished."""
    status = whole.get("status")
    if status == "completed":
        return "tool_calls" if called else "stop"
    if status == "incomplete":
        reason = text(mapping(whole.get("incomplete_details")).get("reason"))
        return _REASONS.get(reason, reason) or "incomplete"
    return "error" if status == "failed" else ""
