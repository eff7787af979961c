"""Framing of HTTP/1.1 messages (RFC 9112): where heads and bodies end in a stream of bytes, however it is split.

Written by hand because a relay needs what llhttp's bindings keep to themselves: the position at which a head and a
message end, heads as the bytes they were, and chunked bodies both as they came and without their framing.

Nothing ambiguous is guessed. Malformed are, in either direction: Content-Length with Transfer-Encoding, more than one
Content-Length or one that is no plain number, a Transfer-Encoding other than `chunked` or in HTTP/1.0, bare LF, CR and
NUL, folded lines, blanks before a colon, more than one Host. What reads the same bytes after us may take them for
another number of messages; so requests like that are refused, and responses like that are no longer read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_HEAD = 64 << 10
MAX_CHUNK_LINE = 4 << 10

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/1\.([0-9])\r\n")
_OTHER_VERSION = re.compile(rb"[^\r\n]+ HTTP/[0-9.]+\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [^\x00\r\n]*)?\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\x00\r\n]*\r\n)*\r\n")
_TRAILER = re.compile(_TOKEN + rb":[^\x00\r\n]*\r\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00\r\n]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FIRST_OF_REQUEST = re.compile(_TOKEN)


class MalformedError(ValueError):
    """Bytes that are no HTTP/1.1, or could be read in two ways. `status` answers them where they are a request."""

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.status = status


class _Head:
    """What requests and responses have in common: `raw` is the whole head as it came, `minor` of HTTP/1.minor."""

    raw: bytes
    minor: int
    fields: dict[bytes, bytes]  # names in lower case; values of repeated ones joined by commas

    @property
    def closes(self) -> bool:
        """Whether the sender means this message to be the connection's last."""
        options = [option.strip() for option in self.fields.get(b"connection", b"").lower().split(b",")]
        return b"close" in options or (self.minor == 0 and b"keep-alive" not in options)


@dataclass(slots=True)
class Request(_Head):
    """Head of a request."""

    raw: bytes
    minor: int
    fields: dict[bytes, bytes]
    method: bytes
    target: bytes


@dataclass(slots=True)
class Response(_Head):
    """Head of a response."""

    raw: bytes
    minor: int
    fields: dict[bytes, bytes]
    status: int


class Heads:
    """Finds heads: `take` gives the bytes of one when it is whole.

    `plausible` tells from the first bytes whether more are worth waiting for; blank lines ahead are skipped.
    """

    def __init__(self, plausible: Callable[[bytes], bool]) -> None:
        self._plausible = plausible
        self._held = b""

    def take(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The head if it ends in `data` from `at` on, and the position behind what was read. Raises MalformedError."""
        before = len(self._held)
        buffer = self._held + data[at:]
        start = 0
        while buffer.startswith(b"\r\n", start):
            start += 2
        end = buffer.find(b"\r\n\r\n", max(start, before - 3)) + 4
        if end > 3:
            self._held = b""
            if end - start > MAX_HEAD:
                raise MalformedError(f"a head of more than {MAX_HEAD} bytes", 431)
            return buffer[start:end], at + end - before
        self._held = buffer[start:]
        if len(self._held) > MAX_HEAD:
            raise MalformedError(f"a head of more than {MAX_HEAD} bytes", 431)
        if _BARE_LF.search(buffer, max(start, before - 1)):
            raise MalformedError("a line of the head ends without CR")
        if self._held not in (b"", b"\r") and not self._plausible(self._held):
            raise MalformedError("not HTTP/1.1")
        return None, len(data)

    @property
    def empty(self) -> bool:
        """Whether no part of a head is held."""
        return not self._held


def request_heads() -> Heads:
    """Of a connection's requests."""
    return Heads(lambda beginning: _FIRST_OF_REQUEST.match(beginning) is not None)


def response_heads() -> Heads:
    """Of a connection's responses."""
    return Heads(lambda beginning: beginning[:7] == b"HTTP/1."[: len(beginning)])


def parse_request(raw: bytes) -> Request:
    """The head of a request. Raises MalformedError."""
    line = _REQUEST_LINE.match(raw)
    if line is None:
        if _OTHER_VERSION.match(raw):
            raise MalformedError("a version other than HTTP/1.x", 505)
        raise MalformedError("the request line is not METHOD TARGET HTTP/1.1")
    request = Request(raw, int(line[3]), _fields(raw, line.end()), line[1], line[2])
    if b"," in request.fields.get(b"host", b""):  # which no host has
        raise MalformedError("more than one Host")
    return request


def parse_response(raw: bytes) -> Response:
    """The head of a response. Raises MalformedError."""
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise MalformedError("the status line is not HTTP/1.1 STATUS REASON")
    return Response(raw, int(line[1]), _fields(raw, line.end()), int(line[2]))


def _fields(raw: bytes, at: int) -> dict[bytes, bytes]:
    if _FIELDS.fullmatch(raw, at) is None:
        raise MalformedError("a field is not NAME: VALUE")
    fields: dict[bytes, bytes] = {}
    for line in raw[at:-4].split(b"\r\n") if len(raw) > at + 2 else ():
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


class Sized:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes, at: int, content: list[bytes] | None) -> int:
        """Read on from `at`: content is appended to `content`, the position behind what was read is returned."""
        end = min(len(data), at + self._left)
        if content is not None and end > at:
            content.append(data[at:end])
        self._left -= end - at
        self.done = self._left == 0
        return end


class Chunked:
    """A chunked body, with extensions and trailers."""

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._take_line = self._size
        self._trailers = 0
        self.done = False

    def feed(self, data: bytes, at: int, content: list[bytes] | None) -> int:
        """As that of Sized; content comes without the chunks' framing. Raises MalformedError."""
        size = len(data)
        while at < size and not self.done:
            if self._left:
                end = min(size, at + self._left)
                if content is not None:
                    content.append(data[at:end])
                self._left -= end - at
            else:
                end = data.find(b"\n", at) + 1
                line = self._line + data[at : end or size]
                if len(line) > MAX_CHUNK_LINE:
                    raise MalformedError(f"a line of a chunked body has more than {MAX_CHUNK_LINE} bytes")
                self._line = b"" if end else line
                if end:
                    self._take_line(line)
                else:
                    end = size
            at = end
        return at

    def _size(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise MalformedError("a chunk does not begin with its size")
        self._left = int(match[1], 16)
        self._take_line = self._behind_chunk if self._left else self._trailer

    def _behind_chunk(self, line: bytes) -> None:
        if line != b"\r\n":
            raise MalformedError("a chunk is longer than its size")
        self._take_line = self._size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        self._trailers += len(line)
        if _TRAILER.fullmatch(line) is None or self._trailers > MAX_HEAD:
            raise MalformedError("a trailer is not NAME: VALUE, or they are too many")


class UntilClose:
    """A body that ends with the connection."""

    done = False

    def feed(self, data: bytes, at: int, content: list[bytes] | None) -> int:
        """As that of Sized."""
        if content is not None and at < len(data):
            content.append(data[at:])
        return len(data)


Body = Sized | Chunked | UntilClose


def request_body(head: Request) -> Body:
    """How the body of a request is framed. Raises MalformedError, also for CONNECT, which has no end."""
    if head.method == b"CONNECT":
        raise MalformedError("CONNECT is not supported", 501)
    return _framed(head) or Sized(0)


def response_body(head: Response, method: bytes) -> Body:
    """How the body of a final response to a request of that method is framed. Raises MalformedError."""
    if method == b"HEAD" or head.status in (204, 304):
        return Sized(0)
    return _framed(head) or UntilClose()


def _framed(head: Request | Response) -> Body | None:
    coding, length = head.fields.get(b"transfer-encoding"), head.fields.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise MalformedError("both Content-Length and Transfer-Encoding")
        if coding.lower() != b"chunked" or head.minor == 0:
            raise MalformedError("a Transfer-Encoding other than chunked, or in HTTP/1.0", 501)
        return Chunked()
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        raise MalformedError("Content-Length is not one number")
    return Sized(int(length))
