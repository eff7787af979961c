"""Samples of an exchange that has been read: one a choice."""

from __future__ import annotations

from typing import Any, NamedTuple

from palegreen.evaluators.sample import Ended, Observation, Sample
from palegreen.evaluators.wire import hints
from palegreen.evaluators.wire.chunks import Body
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.reply import Asked, Choice, Reply
from palegreen.evaluators.wire.shape import mapping, text

_MOST_CHOICES = 1024
_THINK, _THOUGHT = "<think>", "</think>"


class Exchange(NamedTuple):
    """An exchange, its request and response read; `meta` and `parts` are the envelope's."""

    meta: dict[str, Any]
    parts: list[bytes]
    route: str
    request: dict[str, Any]
    asked: Asked
    reply: Reply
    body: Body


def samples(exchange: Exchange, defaults: Defaults) -> list[Observation]:
    """One sample a choice, in their order; one that is empty where no choice came. Raises WireError for too many."""
    asked, reply = exchange.asked, exchange.reply
    if len(reply.choices) > _MOST_CHOICES:
        raise WireError(f"response body: {len(reply.choices)} choices; allowed: at most {_MOST_CHOICES}")
    common = _common(exchange, defaults)
    prompts = asked.prompts or [[]]
    alone = max(len(reply.choices), asked.n * len(prompts)) == 1
    made: list[Observation] = []
    for index, choice in sorted(reply.choices.items()) or [(0, Choice())]:
        at = index // asked.n if len(prompts) > 1 else 0
        messages = prompts[at] if 0 <= at < len(prompts) else []
        response, reasoning, logprobs = "".join(choice.text), "".join(choice.reasoning), choice.logprobs
        if asked.echoes and messages:
            response, logprobs = response.removeprefix(messages[-1]["content"]), None
        if _THINK in response[:20]:
            response, reasoning = _without_thoughts(response, reasoning)
        if choice.refusal:
            response = "\n\n".join(filter(None, (response, "".join(choice.refusal))))
        # Usage is the request's: of several choices the first has the prompt's, so that sums are right.
        first = len(prompts) == 1 and not made
        made.append(
            Sample(
                response=response,
                messages=messages,
                tool_calls=choice.tool_calls,
                finish_reason=choice.finish_reason,
                prompt_tokens=reply.usage.prompt if first else None,
                completion_tokens=reply.usage.completion if alone else len(logprobs) if logprobs else None,
                logprobs=logprobs,
                mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
                choice=index,
                refused=bool(choice.refusal),
                reasoning=reasoning,
                reasoning_tokens=reply.usage.reasoning if alone else None,
                cached_tokens=reply.usage.cached if first else None,
                **common,
            )
        )
    return made


def _common(exchange: Exchange, defaults: Defaults) -> dict[str, Any]:
    """Fields that all choices share."""
    meta, parts, route, request, asked, reply, body = exchange
    sent, got = mapping(meta.get("request_headers")), mapping(meta.get("response_headers"))
    when = meta.get("time") or 0.0
    return {
        "id": reply.id
        or hints.request_id(got, sent)
        or hints.digest(repr(when).encode(), route.encode("utf-8", "replace"), *parts),
        "time": when,
        "model": reply.model or asked.model or defaults.model,
        "endpoint": defaults.endpoint,
        "route": route,
        "replica": defaults.replica,
        "session": text(meta.get("session")) or hints.session(request),
        "trace_id": hints.trace_id(sent),
        "tools": asked.tools,
        "response_format": asked.response_format,
        "contexts": asked.contexts + reply.contexts,
        "ttft_seconds": _ttft(meta, reply, body),
        "duration_seconds": meta.get("duration"),
        "system_fingerprint": reply.fingerprint,
        "sampled": meta.get("sampled", "rate"),
        "tap": text(meta.get("tap")),
        "requested_model": asked.model,
        "status": meta.get("status"),
        "error": reply.error or body.broken,
        "ended": _ended(exchange),
        "truncated": bool(meta.get("request_truncated") or meta.get("response_truncated")),
    }


def _ended(exchange: Exchange) -> Ended:
    """How it ended. A client that hangs up after the last event, or before the engine closes, has got everything."""
    meta, asked, reply, body = exchange.meta, exchange.asked, exchange.reply, exchange.body
    seen: Ended = meta.get("ended", "complete")
    if reply.error or body.broken or seen == "error":
        return "error"
    if body.done or reply.finished(asked.n * len(asked.prompts)):
        return "complete"
    silent = seen == "complete" and body.streamed and not reply.endless and not meta.get("response_truncated")
    return "interrupted" if silent else seen


def _ttft(meta: dict[str, Any], reply: Reply, body: Body) -> float | None:
    """When the chunk with the first token had come; of a body that was encoded, when its first bytes had."""
    arrivals = meta.get("arrivals")
    if not arrivals or not body.streamed or reply.first is None:
        return None
    wanted = reply.first if body.mapped else 0
    return next((float(seconds) for offset, seconds in arrivals if offset >= wanted), None)


def _without_thoughts(response: str, reasoning: str) -> tuple[str, str]:
    """Response and reasoning of a model whose server leaves `<think>...</think>` at the start of the text."""
    begun = response.lstrip()
    if not begun.startswith(_THINK):
        return response, reasoning
    thoughts, _, rest = begun[len(_THINK) :].partition(_THOUGHT)
    return rest.lstrip(), "\n".join(filter(None, (reasoning, thoughts.strip())))
