"""Frames: how records travel between processes of one machine over a stream socket.

A frame is eight bytes, two big-endian lengths (header, body), then the header as JSON and the body's parts one after
another; `"parts"` in the header holds the length of each. Standard library only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_LENGTHS = struct.Struct(">II")
MAX_HEADER = 1 << 20
MAX_BODY = 256 << 20


class FrameError(ValueError):
    """Bytes that are no frame; the stream they came from cannot be read on."""


def encode(header: dict[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """One frame."""
    text = json.dumps({**header, "parts": [len(part) for part in parts]}, separators=(",", ":")).encode()
    return b"".join((_LENGTHS.pack(len(text), sum(map(len, parts))), text, *parts))


class Decoder:
    """Cuts a stream of bytes into frames, however it is split; holds at most one frame that is not whole."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._held = bytearray()
        self._max_body = max_body

    @property
    def partial(self) -> bool:
        """Whether part of a frame is held."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        """The frames that are whole now, as (header, parts). Raises FrameError."""
        self._held += data
        while len(self._held) >= _LENGTHS.size:
            header_size, body_size = _LENGTHS.unpack_from(self._held)
            if header_size > MAX_HEADER or body_size > self._max_body:
                raise FrameError(f"a frame of {header_size} + {body_size} bytes is larger than is allowed")
            body_at = _LENGTHS.size + header_size
            if len(self._held) < body_at + body_size:
                return
            whole = bytes(self._held[: body_at + body_size])
            del self._held[: body_at + body_size]
            yield _opened(whole[_LENGTHS.size : body_at], whole[body_at:])


def _opened(text: bytes, body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    try:
        header = json.loads(text)
        lengths = header.pop("parts")
        if sum(lengths) != len(body) or any(length < 0 for length in lengths):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise FrameError("a frame whose header is not that of one") from None
    parts, at = [], 0
    for length in lengths:
        parts.append(body[at : at + length])
        at += length
    return header, parts
