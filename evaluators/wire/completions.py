"""Completions, `/v1/completions`: a prompt, or several, continued."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palegreen.evaluators.sample import Message
from palegreen.evaluators.wire import message
from palegreen.evaluators.wire.chat import contexts
from palegreen.evaluators.wire.reply import Asked, Chunk, Reply, Usage, error_of
from palegreen.evaluators.wire.shape import count, mapping, numbers, objects, text


def asked(request: dict[str, Any]) -> Asked:
    """What a request asks: one conversation of one message for each prompt."""
    return Asked(
        model=text(request.get("model")),
        prompts=prompts(request.get("prompt")),
        response_format=message.response_format(request),
        contexts=contexts(request),
        n=count(request.get("n")) or 1,
        echoes=request.get("echo") is True,
    )


def prompts(given: object) -> list[list[Message]]:
    """Conversations of a prompt or a batch of them. Token ids are no text: such a prompt stands as `[tokens]`."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not given:
        return []
    if isinstance(given[0], int):
        given = [given]
    return [[Message(role="user", content=one if isinstance(one, str) else "[tokens]")] for one in given]


def replied(chunks: Iterable[Chunk]) -> Reply:
    """What came back."""
    reply = Reply()
    for data, end in chunks:
        if ("error" in data or "choices" not in data) and (error := error_of(data)):
            reply.error = error
            break
        reply.id = reply.id or text(data.get("id"))
        reply.model = reply.model or text(data.get("model"))
        reply.fingerprint = reply.fingerprint or text(data.get("system_fingerprint"))
        if usage := data.get("usage"):
            reply.usage = Usage.read(usage)
        for choice in objects(data.get("choices")):
            held = reply.choice(count(choice.get("index")) or 0)
            if piece := text(choice.get("text")):
                held.text.append(piece)
                reply.first = end if reply.first is None else reply.first
            if reason := text(choice.get("finish_reason")):
                held.finish_reason = reason
            if logprobs := choice.get("logprobs"):
                held.add_logprobs(_logprobs(mapping(logprobs)))
    return reply


def _logprobs(given: dict[str, Any]) -> list[float]:
    # llama.cpp gives chat's form here. The first token of an echoed prompt has null.
    return numbers(given.get("token_logprobs") or [token.get("logprob") for token in objects(given.get("content"))])
