"""One question and its answer in the OpenAI API, with the probabilities of its tokens where the engine tells them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Event
from typing import Any

from palegreen.evaluators.probes.client import AskError, Replica
from palegreen.evaluators.sample import CANARY
from palegreen.evaluators.wire import chat, chunks
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.reply import Chunk
from palegreen.evaluators.wire.shape import mapping, number, objects, text

PATH = "/v1/chat/completions"
TOP = 5
"""Alternatives of each token that are asked for."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token, its logprob, and those of the likeliest tokens in its place."""

    text: str
    logprob: float
    top: dict[str, float]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. `text` is all that the model wrote, reasoning and tool calls included; times are seconds."""

    text: str
    finish_reason: str
    tokens: tuple[Token, ...]
    model: str
    ttft: float
    duration: float
    prompt_tokens: int
    completion_tokens: int


class Chat:
    """Asks one engine. What it refuses (logprobs, usage in streams) is left out from then on."""

    def __init__(self, replica: Replica, *, priority: int | None = None, detailed: bool = True) -> None:
        """`detailed`: ask for logprobs and usage. `priority` is sent along, if there is one."""
        self._replica = replica
        self._always: dict[str, object] = {"stream": True, "user": CANARY}
        if priority is not None:
            self._always["priority"] = priority
        usage: dict[str, object] = {"stream_options": {"include_usage": True}}
        logprobs: dict[str, object] = {"logprobs": True, "top_logprobs": TOP}
        self._optional: list[dict[str, object]] = [logprobs | usage, usage, {}] if detailed else [{}]

    @property
    def replica(self) -> Replica:
        """The engine."""
        return self._replica

    @property
    def has_logprobs(self) -> bool:
        """Whether they are still asked for."""
        return "logprobs" in self._optional[0]

    def ask(self, request: dict[str, Any], *, timeout: float, stopped: Event) -> Said:
        """Put `request` (messages, max_tokens, temperature, ...). Raises AskError."""
        refusal: AskError | None = None
        for optional in list(self._optional):
            try:
                said = self._ask(request | self._always | optional, timeout, stopped)
            except AskError as failure:
                if failure.status not in (400, 422):
                    raise
                refusal = refusal or failure
                continue
            while self._optional[0] is not optional:
                self._optional.pop(0)
            return said
        assert refusal is not None  # noqa: S101 - there was at least one attempt
        raise refusal

    def models(self, *, timeout: float, stopped: Event) -> list[str]:
        """Names of what the engine serves. Raises AskError."""
        answer = self._replica.ask("/v1/models", timeout=timeout, stopped=stopped)
        try:
            found = chunks.read(bytes(answer.body), answer.content_type, "", cut=False).chunks
        except WireError as refused:
            raise AskError("malformed", f"/v1/models: {refused}") from None
        return [name for body, _ in found[:1] for each in objects(body.get("data")) if (name := text(each.get("id")))]

    def _ask(self, body: dict[str, Any], timeout: float, stopped: Event) -> Said:
        answer = self._replica.ask(PATH, body=body, timeout=timeout, stopped=stopped)
        try:
            read = chunks.read(bytes(answer.body), answer.content_type, "", cut=False)
        except WireError as refused:
            raise AskError("malformed", str(refused), 200) from None
        reply = chat.replied(read.chunks)
        if reply.error:
            raise AskError("refused", f"an error instead of an answer: {reply.error}", 200)
        choice = reply.choices.get(0)
        if read.broken or choice is None:
            raise AskError("malformed", read.broken or "an answer without a choice", 200)
        if not choice.finish_reason and not read.done:
            raise AskError("interrupted", "the answer stops without a finish_reason", 200)
        calls = [f"{call['name']}({call['arguments']})" for call in choice.tool_calls]
        first = reply.first if reply.first is not None else 0
        tokens = tuple(_tokens(read.chunks))
        return Said(
            text="\n".join(filter(None, ("".join(choice.reasoning), "".join(choice.text or choice.refusal), *calls))),
            finish_reason=choice.finish_reason,
            tokens=tokens,
            model=reply.model,
            ttft=next((when for size, when in answer.arrivals if size >= first), answer.seconds),
            duration=answer.seconds,
            prompt_tokens=reply.usage.prompt or 0,
            completion_tokens=reply.usage.completion or len(tokens),
        )


def _tokens(found: Iterable[Chunk]) -> Iterable[Token]:
    for body, _ in found:
        for choice in objects(body.get("choices"))[:1]:
            for token in objects(mapping(choice.get("logprobs")).get("content")):
                logprob = number(token.get("logprob"))
                if logprob is not None:
                    listed = objects(token.get("top_logprobs"))
                    top = {
                        text(one.get("token")): value
                        for one in listed
                        if (value := number(one.get("logprob"))) is not None
                    }
                    yield Token(text(token.get("token")), logprob, top)
