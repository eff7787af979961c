"""The body of a response as JSON objects: one, one an event, or one a line."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from palegreen.evaluators.wire import sse
from palegreen.evaluators.wire.body import as_utf8, decoded
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import loads, recovered
from palegreen.evaluators.wire.reply import Chunk

WHERE = "response body"
_EVENT_STARTS = (b"data:", b"event:", b":", b"id:", b"retry:")


class Body(NamedTuple):
    """What a response was made of.

    `streamed`: events or lines. `mapped`: the chunks' offsets are those on the wire, nothing was decoded. `done`: the
    stream said that it ended. `broken`: why a client could not read on, a few words without its text.
    """

    chunks: list[Chunk]
    streamed: bool = False
    mapped: bool = True
    done: bool = False
    broken: str = ""


def read(body: bytes, content_type: str, encoding: str, *, cut: bool) -> Body:
    """Read a body by what it looks like: servers and loggers label streams wrongly.

    Args:
        body: as it was on the wire.
        content_type: value of the header, empty if unknown.
        encoding: value of content-encoding, empty for none.
        cut: the end may be missing; what is there is read.

    Raises:
        WireError: not what an API sends.
    """
    plain = as_utf8(decoded(body, encoding, WHERE, cut=cut), content_type, WHERE)
    start = plain[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return Body([], broken="" if cut else "the body is empty")
    if start.startswith(_EVENT_STARTS) or ("event-stream" in content_type and start[0] != 0x7B):
        found = _events(plain)
    elif "ndjson" in content_type or b"}\n{" in plain:
        found = _lines(plain, cut)
    else:
        value = recovered(plain) if cut else loads(plain, WHERE)
        if not isinstance(value, dict):
            raise WireError(f"{WHERE}: JSON that is no object")
        return Body([(value, len(plain))])
    return found._replace(mapped=plain is body)


def _events(body: bytes) -> Body:
    chunks: list[Chunk] = []
    for at, (data, _, end) in enumerate(sse.parse(body)):
        if data == b"[DONE]":
            return Body(chunks, streamed=True, done=True)
        value = _object(data)
        if value is not None:
            chunks.append((value, end))
        elif data:
            return Body(chunks, streamed=True, broken=f"event {at + 1} of the stream is no JSON object")
    return Body(chunks, streamed=True)


def _lines(body: bytes, cut: bool) -> Body:
    chunks: list[Chunk] = []
    end = 0
    for at, line in enumerate(body.splitlines(keepends=True)):
        end += len(line)
        value = _object(line)
        if value is not None:
            chunks.append((value, end))
        elif cut and end == len(body):
            break
        elif line.strip():
            return Body(chunks, streamed=True, broken=f"line {at + 1} of the stream is no JSON object")
    return Body(chunks, streamed=True)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            value = loads(data, WHERE)
        except WireError:
            return None
    return value if isinstance(value, dict) else None
