"""Chats as the proxy hands them over: ordinary English, never twice the same, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Literal

from palegreen.evaluators.envelope import Envelope

Kind = Literal["unstreamed", "streamed", "mixed"]

CHARACTERS = 300
MODEL = "llama-3.1-8b-instruct"
_BEGAN = 1_767_225_600.0
_WORDS = {
    "person": "doctor teacher engineer farmer writer manager child nurse driver lawyer student neighbour scientist "
    "baker captain editor gardener clerk pilot tailor judge miner painter plumber sailor singer",
    "thing": "report engine garden letter bridge budget recipe contract window schedule kitchen database river "
    "battery mountain journal hospital village station machine museum ticket camera harbour library forest "
    "market ladder orchestra pipeline turbine invoice keyboard lantern novel orchard parcel quarry satellite "
    "telescope umbrella vaccine warehouse balance calendar diagram election festival glacier helmet island",
    "quality": "small early careful broken expensive modern quiet heavy local recent difficult ordinary narrow "
    "reliable ancient bright cheap dense empty familiar gentle honest idle junior keen likely mature",
    "did": "repaired described moved finished studied painted opened compared measured delivered sold borrowed "
    "changed cleaned designed explained followed guarded improved joined kept lifted managed noticed",
    "does": "improves affects replaces supports delays protects changes explains limits completes feeds heats",
    "where": "near the coast|in the old town|behind the school|at the northern border|on the second floor|across the "
    "valley|under the main road|beside the factory|at the edge of the forest|between two rivers",
    "when": "last winter|before the storm|every morning|after the meeting|during the summer|on a Tuesday|at the end of "
    "the year|while nobody was watching|once the snow had melted|in the following week",
    "so": "because|although|while|so that|even if|since|until|whenever",
}
_POOLS = {name: words.split("|" if "|" in words else " ") for name, words in _WORDS.items()}
_STATEMENTS = (
    "The {quality} {person} {did} the {thing} {where} {when}.",
    "{When}, the {person} {did} a {quality} {thing}, {so} the {thing} {where} {does} the {thing}.",
    "It is {quality} work, {so} one {thing} {does} every {thing} {where}.",
    "About {number} of the {quality} {person}s {did} their {thing} {when}.",
    "Most {person}s agree that this {thing} {does} the {quality} {thing}.",
    "There is a {quality} {thing} {where}, and the {person} {did} it {when}.",
)
_QUESTIONS = (
    "How does the {quality} {thing} help the {person} {where}?",
    "Why has the {person} {did} the {thing} {when}?",
    "Which {thing} {does} the {quality} {thing} best, and what does the {person} gain from it?",
    "Could you explain what the {person} {did} {where} {when}?",
)


def exchanges(kind: Kind, seed: int) -> Iterator[Envelope]:
    """Envelopes without end; half of those of `mixed` are streamed."""
    rng = random.Random(seed)
    number = 0
    while True:
        streamed = kind == "streamed" or (kind == "mixed" and number % 2 == 1)
        yield _exchange(rng, number, streamed)
        number += 1


def _exchange(rng: random.Random, number: int, streamed: bool) -> Envelope:
    prompt, response = _text(rng, question=True), _text(rng, question=False)
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "temperature": 0.7}
    if streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    fixed = {"id": f"chatcmpl-{rng.getrandbits(128):032x}", "created": int(_BEGAN) + number, "model": MODEL}
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(response) // 4}
    body = _stream(fixed, response, usage) if streamed else _whole(fixed, response, usage)
    seconds = rng.uniform(0.5, 3.0)
    meta = {
        "tap": "proxy",
        "kind": "http",
        "time": _BEGAN + number / 100,
        "sampled": "rate",
        "content_type": "text/event-stream" if streamed else "application/json",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "request_headers": {"content-type": "application/json"},
        "response_headers": {"content-type": "text/event-stream; charset=utf-8" if streamed else "application/json"},
        "arrivals": [[0, 0.1], [len(body) // 2, seconds / 2], [len(body), seconds]] if streamed else [[0, seconds]],
        "duration": seconds,
        "ended": "complete",
        "session": f"session-{rng.randrange(1000)}",
    }
    return Envelope(meta, [json.dumps(asked).encode(), body])


def _whole(fixed: dict[str, Any], response: str, usage: dict[str, int]) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": response, "refusal": None, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json.dumps({**fixed, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def _stream(fixed: dict[str, Any], response: str, usage: dict[str, int]) -> bytes:
    """A chunk a token, four characters each, as engines send them."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": response[at : at + 4]} for at in range(0, len(response), 4)]
    choices: list[list[dict[str, Any]]] = [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}] for delta in deltas
    ]
    choices.append([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    events = [{**fixed, "object": "chat.completion.chunk", "choices": each} for each in choices]
    events.append({**fixed, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"


def _text(rng: random.Random, question: bool) -> str:
    """Sentences of about `CHARACTERS` characters in all, the last statement cut short; a prompt ends in a question."""
    ending = _sentence(rng, _QUESTIONS) if question else ""
    room = CHARACTERS - len(ending) - bool(ending)
    text = ""
    while len(text) < room:
        text += f"{' ' if text else ''}{_sentence(rng, _STATEMENTS)}"
    return f"{text[: room - 1].rstrip(' .')}. {ending}".strip()


def _sentence(rng: random.Random, forms: tuple[str, ...]) -> str:
    words = {name: _Each(rng, pool) for name, pool in _POOLS.items()}
    return rng.choice(forms).format(
        **words, When=rng.choice(_POOLS["when"]).capitalize(), number=rng.randrange(2, 5000)
    )


class _Each:
    """Another word each time it is formatted."""

    def __init__(self, rng: random.Random, pool: list[str]) -> None:
        self._rng = rng
        self._pool = pool

    def __format__(self, _: str) -> str:
        return self._rng.choice(self._pool)
