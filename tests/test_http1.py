"""Framing of HTTP/1.1: the same bytes mean the same messages, however they are split, and nothing crashes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palegreen.evaluators.taps.http1 import (
    MAX_CHUNK_LINE,
    MAX_HEAD,
    Body,
    MalformedError,
    parse_request,
    parse_response,
    request_body,
    request_heads,
    response_body,
    response_heads,
)

HOST = b"GET / HTTP/1.1\r\nHost: h\r\n"


def read(pieces: Sequence[bytes], of_responses: bool) -> tuple[list[Any], bool]:
    """Messages as [head, content, position of their end], and whether the bytes were malformed."""
    heads, parse, messages = (
        (response_heads(), parse_response, []) if of_responses else (request_heads(), parse_request, [])
    )
    body: Body | None = None
    before = 0
    try:
        for data in pieces:
            at = 0
            while at < len(data):
                if body is None:
                    raw, at = heads.take(data, at)
                    if raw is None:
                        break
                    head: Any = parse(raw)
                    body = response_body(head, b"GET") if of_responses else request_body(head)
                    messages.append([head, b"", None])
                content: list[bytes] = []
                try:
                    at = body.feed(data, at, content)
                finally:
                    messages[-1][1] += b"".join(content)
                if body.done:
                    messages[-1][2], body = before + at, None
            before += len(data)
    except MalformedError:
        return messages, True
    return messages, False


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


TOKENS = [
    b"GET / HTTP/1.1\r\n", b"POST /v1/x HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 404 No\r\n", b"Host: h\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"hello", b"5\r\nhello\r\n", b"5;x\r\n", b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n",
    b"\x00", b"\xff", b" ", b":", b"X: y\r\n", b"1", b"fffffffffffffff\r\n",
]  # fmt: skip
NEARLY = st.lists(st.sampled_from(TOKENS), max_size=14).map(b"".join)
CUTS = st.lists(st.integers(0, 200), max_size=12)


@given(data=NEARLY | st.binary(max_size=300), cuts=CUTS, of_responses=st.booleans())
@example(data=HOST + b"\r\n" + HOST + b"\r\n", cuts=list(range(200)), of_responses=False)
@example(data=b"\r\n\r\n" + HOST + b"\r\n\r\n" + HOST + b"\r\n", cuts=list(range(200)), of_responses=False)
def test_any_split_of_any_bytes_gives_the_same_messages(data: bytes, cuts: list[int], of_responses: bool) -> None:
    assert read(split(data, cuts), of_responses) == read([data], of_responses)


FIELDS = st.lists(st.tuples(st.sampled_from([b"X-A", b"x-b", b"Y!"]), st.binary(max_size=9)), max_size=4)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    """Bytes of a valid response, its content, its status."""
    status = draw(st.sampled_from([200, 206, 404, 503]))
    head = b"HTTP/1.1 %d Why\r\n" % status
    for name, value in draw(FIELDS):
        head += name + b": " + bytes(each for each in value if each not in b"\x00\r\n") + b"\r\n"
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    if draw(st.booleans()):
        head += b"Content-Length: %d\r\n\r\n" % len(b"".join(chunks))
        return head + b"".join(chunks), b"".join(chunks), status
    extension = draw(st.sampled_from([b"", b";a", b' ; a="b"']))
    body = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    trailers = draw(st.sampled_from([b"", b"T: 1\r\n", b"T: 1\r\nU:\r\n"]))
    return head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailers + b"\r\n", b"".join(chunks), status


@given(messages=st.lists(responses(), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 900), max_size=20))
def test_valid_messages_are_read_as_they_were_written(
    messages: list[tuple[bytes, bytes, int]], cuts: list[int]
) -> None:
    found, malformed = read(split(b"".join(raw for raw, _, _ in messages), cuts), of_responses=True)
    ends = [len(b"".join(raw for raw, _, _ in messages[: count + 1])) for count in range(len(messages))]
    assert not malformed
    assert [(content, head.status, end) for head, content, end in found] == [
        (content, status, end) for (_, content, status), end in zip(messages, ends, strict=True)
    ]


AMBIGUOUS = {
    "both lengths": HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": HOST + b"Content-Length: 5, 5\r\n\r\n",
    "a signed length": HOST + b"Content-Length: +5\r\n\r\n",
    "a negative length": HOST + b"Content-Length: -5\r\n\r\n",
    "a length with a blank": HOST + b"Content-Length: 1 1\r\n\r\n",
    "no length": HOST + b"Content-Length:\r\n\r\n",
    "a length in other digits": HOST + b"Content-Length: \xd9\xa5\r\n\r\n",
    "an endless length": HOST + b"Content-Length: 9999999999999999999\r\n\r\n",
    "another coding": HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a coding in disguise": HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "an empty coding": HOST + b"Transfer-Encoding:\r\n\r\n",
    "a coding in HTTP/1.0": b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: h\n\n",
    "bare LF in the fields": HOST + b"A: b\nContent-Length: 5\r\n\r\n",
    "bare CR": HOST + b"A: b\rC: d\r\n\r\n",
    "NUL": HOST + b"A: \x00\r\n\r\n",
    "a folded line": HOST + b"A: b\r\n c\r\n\r\n",
    "a blank before the colon": HOST + b"Content-Length : 5\r\n\r\n",
    "a field without a name": HOST + b": x\r\n\r\n",
    "a field without a colon": HOST + b"x\r\n\r\n",
    "two hosts": HOST + b"Host: other\r\n\r\n",
    "blanks in the target": b"GET / x HTTP/1.1\r\nHost: h\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "another version": b"GET / HTTP/2.0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_could_be_read_in_two_ways_is_malformed(name: str) -> None:
    assert read([AMBIGUOUS[name]], of_responses=False)[1]


BROKEN = {
    "no size": b"\r\nhello\r\n",
    "a size that is no number": b"x\r\n",
    "a signed size": b"-1\r\n",
    "a prefixed size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size too large": b"1" * 16 + b"\r\n",
    "bare LF behind the size": b"5\nhello\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n",
    "a chunk longer than its size": b"4\r\nhello\r\n",
    "an endless extension": b"5;" + b"a" * MAX_CHUNK_LINE,
    "a trailer that is none": b"0\r\nx\r\n\r\n",
    "endless trailers": b"0\r\n" + b"T: 1\r\n" * MAX_HEAD,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_chunked_body_that_is_not_framed_exactly_is_malformed(name: str) -> None:
    assert read([HOST + b"Transfer-Encoding: chunked\r\n\r\n" + BROKEN[name]], of_responses=False)[1]


@pytest.mark.parametrize("beginning", [b"GET / HTTP/1.1\r\nA: ", b"A" * 20])
def test_a_head_without_end_is_malformed_once_it_is_too_long(beginning: bytes) -> None:
    pieces = [beginning] + [b"a" * 1000] * (MAX_HEAD // 1000 + 1)
    assert read(pieces, of_responses=False)[1]
    assert not read(pieces[:-2], of_responses=False)[1]


def test_what_cannot_become_a_response_is_malformed_from_its_first_byte() -> None:
    assert read([b"X"], of_responses=True)[1]
    assert read([b"HTTP/2"], of_responses=True)[1]
    assert not read([b"HTTP/1"], of_responses=True)[1]
