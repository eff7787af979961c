"""Exchanges as a tap hands them over, and what they decode to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire.decode import Decoder
from palegreen.evaluators.wire.defaults import Defaults

CAPTURES = Path(__file__).parent.parent / "captures" / "wire"
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "asked", "messages": [{"role": "user", "content": "Why?"}]}


def capture(name: str) -> dict[str, Any]:
    """A recorded exchange; `response` is the body."""
    found: dict[str, Any] = json.loads((CAPTURES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def envelope(request: Any = None, response: Any = b"", *, path: str = CHAT, status: int = 200, **meta: Any) -> Envelope:
    """An exchange; objects are written as JSON, a list as a stream of events that ends in [DONE]."""
    if isinstance(response, list):
        response = stream(*response)
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (request or ASKED, response)]
    return Envelope({"tap": "proxy", "kind": "http", "method": "POST", "path": path, "status": status, **meta}, parts)


def captured(name: str, **meta: Any) -> Envelope:
    """The envelope of a recorded exchange."""
    exchange = capture(name)
    kept = {key: exchange[key] for key in ("path", "status", "response_headers", "arrivals", "duration")}
    return envelope(exchange["request"], exchange["response"].encode(), **{**kept, **meta})


def stream(*chunks: Any, done: bool = True) -> bytes:
    """A stream of events."""
    lines = [b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks]
    return b"".join(lines) + (b"data: [DONE]\n\n" if done else b"")


def delta(content: str | None = None, finish_reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk of a chat stream."""
    brought = {**({} if content is None else {"content": content}), **more}
    choice = {"index": index, "delta": brought, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "served", "choices": [choice]}


def samples(given: Envelope, defaults: Defaults | None = None) -> list[Sample]:
    """What it decodes to, all of them samples."""
    found = Decoder(defaults or Defaults()).decode(given)
    assert all(isinstance(one, Sample) for one in found)
    return [one for one in found if isinstance(one, Sample)]


def sample(given: Envelope, defaults: Defaults | None = None) -> Sample:
    """The only sample."""
    (found,) = samples(given, defaults)
    return found
