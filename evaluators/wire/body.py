"""Bodies as they were meant: content-encoding undone within a limit, text as UTF-8."""

from __future__ import annotations

import zlib

import brotli
import zstandard

from palegreen.evaluators.wire.errors import WireError

MAX_DECODED = 4 << 20
"""Most bytes that a compressed body may decode to. Parsed JSON takes up to 25 times its text."""

_MOST_MEMBERS = 64
_GZIP = 16 + zlib.MAX_WBITS
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}
_UTF8 = ("", "utf-8", "utf8", "us-ascii", "ascii")
_CHARSETS = ("iso-8859-1", "latin-1", "windows-1252", "utf-16", "utf-16le", "utf-16be")


def decoded(body: bytes, encoding: str, where: str, *, cut: bool = False, limit: int = MAX_DECODED) -> bytes:
    """`body` without its content-encoding.

    Args:
        body: the bytes as they were on the wire.
        encoding: value of the header content-encoding, empty for none.
        where: what the body is, for the error.
        cut: the end may be missing; what is there is decoded.
        limit: most bytes that come out.

    Raises:
        WireError: an encoding that is not known, damaged data, or more than the limit.
    """
    if not encoding or not body:
        return body
    codings = [name.strip().lower() for name in encoding.split(",")]
    if len(codings) > 2:
        raise WireError(f"{where}: {len(codings)} content-encodings; allowed: at most 2")
    for coding in reversed(codings):
        if coding in ("", "identity"):
            continue
        if coding in _WINDOWS:
            body = _inflated(body, coding, where, cut, limit)
        elif coding in ("br", "zstd"):
            body = _unpacked(body, coding, where, cut, limit)
        else:
            raise WireError(f"{where}: content-encoding {coding[:20]!r}; allowed: gzip, deflate, br, zstd, identity")
    return body


def _unpacked(body: bytes, coding: str, where: str, cut: bool, limit: int) -> bytes:
    whole = True  # a zstd frame that ends too early is not told from a whole one; what was to be read will tell
    try:
        if coding == "br":
            stream = brotli.Decompressor()
            out = stream.process(body, output_buffer_limit=limit + 1)
            whole = stream.is_finished() or len(out) > limit
        else:
            window = max(limit, 1 << 23)  # what RFC 9659 has decoders support
            with zstandard.ZstdDecompressor(max_window_size=window).stream_reader(body) as frame:
                out = frame.read(limit + 1)
    except (brotli.error, zstandard.ZstdError):
        raise WireError(f"{where}: not valid {coding} data") from None
    if len(out) > limit:
        raise WireError(f"{where}: {coding} data of more than {limit} bytes; allowed: at most that")
    if not whole and not cut:
        raise WireError(f"{where}: {coding} data that ends too early")
    return bytes(out)


def _inflated(body: bytes, coding: str, where: str, cut: bool, limit: int) -> bytes:
    window = _WINDOWS[coding]
    if coding == "deflate" and (body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31):
        window = -zlib.MAX_WBITS  # some servers send deflate without zlib's header
    out: list[bytes] = []
    room = limit
    while body:  # gzip may have several members
        if len(out) == _MOST_MEMBERS:
            raise WireError(f"{where}: {coding} data of more than {_MOST_MEMBERS} members; allowed: at most that")
        stream = zlib.decompressobj(window)
        try:
            piece = stream.decompress(body, room + 1)
        except zlib.error:
            raise WireError(f"{where}: not valid {coding} data") from None
        room -= len(piece)
        if room < 0:
            raise WireError(f"{where}: {coding} data of more than {limit} bytes; allowed: at most that")
        out.append(piece)
        if not stream.eof:
            if cut:
                break
            raise WireError(f"{where}: {coding} data that ends too early")
        body = stream.unused_data.lstrip(b"\0")  # members may be padded
    return b"".join(out)


def as_utf8(body: bytes, content_type: str, where: str) -> bytes:
    """`body` in UTF-8, whatever charset the content-type names. Raises WireError for a charset that is not known."""
    if "charset" not in content_type.lower():
        return body
    charset = content_type.lower().partition("charset")[2].lstrip(" =").partition(";")[0].strip(" \"'")
    if charset in _UTF8:
        return body
    if charset not in _CHARSETS:
        raise WireError(f"{where}: charset {charset[:20]!r}; allowed: utf-8, {', '.join(_CHARSETS)}")
    return body.decode(charset, "replace").encode("utf-8", "replace")
