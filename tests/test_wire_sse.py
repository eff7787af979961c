"""Server-sent events, as the WHATWG's standard parses them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.wire.sse import Parser, parse

PIECES = [
    b"data",
    b"event",
    b"id",
    b":",
    b" ",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    "é🙂".encode(),
    b"x",
    b"\xff",
    b"\0",
]
LINES = [b"data: a", b"data:b", b"data", b": ping", b"event: e", b"id: 1", b"", "data: 🙂".encode()]
ENDS = [b"\n", b"\r", b"\r\n"]


def data(body: bytes) -> list[bytes]:
    return [event.data for event in parse(body)]


@pytest.mark.parametrize("end", ENDS)
def test_lines_end_in_lf_cr_or_crlf(end: bytes) -> None:
    assert data(end.join((b"data: a", b"data: b", b"", b"data: c", b"", b""))) == [b"a\nb", b"c"]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),  # a byte order mark
        (b"\xef\xbb\xbf\n\ndata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),  # which is one at the start only
        (b": ping\n\n:\n\ndata: a\n\n", [b"a"]),  # comments
        (b"data:a\n\ndata:  a\n\n", [b"a", b" a"]),  # one blank is taken off
        (b"data\n\ndata:\n\n", [b"", b""]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"event: x\n\n", []),  # no data, no event
        (b"data: a\n\ndata: b\n", [b"a"]),  # not ended by a blank line
        (b"datax: a\n data: b\nData: c\n\n", []),  # fields that are none
        (b"data: a:b\nid: 7\nretry: 10\nwhat: ever\n\n", [b"a:b"]),
        (b"", []),
    ],
)
def test_a_stream_reads_as_the_standard_says(body: bytes, events: list[bytes]) -> None:
    assert data(body) == events


def test_the_name_of_an_event_holds_for_one_event() -> None:
    names = [event.name for event in parse(b"event: x\ndata: a\n\ndata: b\n\nevent: y\n\ndata: c\n\n")]
    assert names == ["x", "", ""]


@pytest.mark.parametrize("end", ENDS)
def test_an_event_says_how_much_of_the_stream_it_took(end: bytes) -> None:
    first, second = b"data: a" + end, b"data: b" + end + b"data: c" + end
    body = b"\xef\xbb\xbf" + first + end + second + end
    assert [body[: event.end] for event in parse(body)] == [
        b"\xef\xbb\xbf" + first,
        b"\xef\xbb\xbf" + first + end + second,
    ]


@given(
    st.one_of(
        st.lists(st.sampled_from(PIECES)).map(b"".join),
        st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(ENDS))).map(
            lambda ls: b"".join(a + b for a, b in ls)
        ),
        st.binary(max_size=200),
    ),
    st.data(),
)
def test_any_split_of_a_stream_gives_the_same_events(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    parser, events = Parser(), []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        events += parser.feed(body[start:end])
    assert events == parse(body)


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(ENDS)), max_size=8))
def test_a_stream_that_comes_byte_by_byte_gives_the_same_events(lines: list[tuple[bytes, bytes]]) -> None:
    body = b"".join(line + end for line, end in lines)
    parser = Parser()
    assert [event for at in range(len(body)) for event in parser.feed(body[at : at + 1])] == parse(body)
