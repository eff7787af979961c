"""What the proxy's tap holds, counts and lets go; and that none of it can disturb the relay."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.proxying import (
    CHAT,
    Connection,
    Upstream,
    answering,
    chunked,
    everything,
    exactly,
    get,
    ok,
    post,
    proxied,
)
from support.waiting import until

from palegreen.evaluators.taps.sampling import Sampler

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NEVER = Sampler(0.0)
REQUESTS = "palegreen_proxy_requests_total"
DROPPED = "palegreen_tap_dropped_total"
UNSAMPLED = "palegreen_tap_unsampled_total"


def test_an_exchange_becomes_an_envelope_with_what_a_decoder_needs_and_no_secret() -> None:
    body = gzip.compress(b'{"choices": []}')
    response = ok(body, "Content-Encoding: gzip", "X-Request-Id: r1", "Set-Cookie: secret=1")
    fields = (
        "Authorization: Bearer secret", "Cookie: secret=2", "X-Session-Id: s1",
        f"Traceparent: 00-{TRACE}-00f067aa0ba902b7-01",
        "User-Agent: test", "X-Palegreen-Team: search", "X-Api-Key: secret", "X-Request-Id: q1",
    )  # fmt: skip
    with Upstream(answering(response)) as upstream, proxied(upstream.url) as proxy:
        assert proxy.pipelined(post(b'{"a": 1}', CHAT + "?v=1", *fields), len(response)) == response
        meta, parts = until(lambda: proxy.envelopes)[0]
    assert parts == [b'{"a": 1}', body]
    assert "secret" not in repr(meta)
    wanted = {
        "tap": "proxy", "kind": "http", "sampled": "rate", "method": "POST", "path": f"{CHAT}?v=1", "status": 200,
        "ended": "complete", "session": "s1", "request_truncated": False, "response_truncated": False,
        "response_headers": {"content-type": "application/json", "content-encoding": "gzip", "x-request-id": "r1"},
    }  # fmt: skip
    assert wanted.items() <= meta.items()
    assert set(meta["request_headers"]) == {
        "content-type", "x-session-id", "traceparent", "user-agent", "x-palegreen-team", "x-request-id",
    }  # fmt: skip
    assert meta["arrivals"][-1] == [len(body), meta["arrivals"][-1][1]]
    assert 0 < meta["arrivals"][-1][1] <= meta["duration"]


def test_a_secret_that_names_the_session_is_held_only_as_its_hash() -> None:
    keys = ("one", "two", "one")
    with Upstream(answering(*[ok()] * 3)) as upstream, proxied(upstream.url, session_header="Authorization") as proxy:
        requests = b"".join(post(b"{}", CHAT, f"Authorization: Bearer secret-{key}") for key in keys)
        proxy.pipelined(requests, 3 * len(ok()))
        sessions = [each.meta["session"] for each in until(lambda: len(proxy.envelopes) == 3 and proxy.envelopes)]
        assert "secret" not in repr(proxy.envelopes)
    assert sessions[0] == sessions[2] != sessions[1] != ""


def test_requests_are_counted_and_timed_with_the_trace_as_exemplar() -> None:
    with Upstream(answering(ok(), ok())) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        for request in (post(b"{}", CHAT, f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"), get("/health")):
            client.sendall(request)
            exactly(client, len(ok()))
        until(lambda: proxy.metric(f'{REQUESTS}{{code="2xx",ended="complete"}}') == 2)
        assert proxy.metric("palegreen_proxy_request_duration_seconds_count") == 2
        assert proxy.metric("palegreen_proxy_time_to_first_byte_seconds_count") == 2
        assert proxy.metric("palegreen_proxy_connections") == 1
        assert proxy.metric('palegreen_tap_received_total{tap="proxy"}') == 1
        assert f'trace_id="{TRACE}"' in proxy.exposition(openmetrics=True)
    until(lambda: proxy.metric("palegreen_proxy_connections") == 0)


@pytest.mark.parametrize(
    ("request_bytes", "tapped"),
    [
        (post(), True),
        (post(b"{}", "/v1/completions"), True),
        (post(b"{}", "/openai/responses?api-version=1"), True),
        (post(b"{}", "/generate"), True),
        (post(b"{}", "/api/chat"), True),
        (post(b"{}", "/v1/embeddings"), False),
        (post(b"{}", "/v1/responses/r1/cancel"), False),
        (get(CHAT), False),
    ],
)
def test_only_posts_to_paths_that_generate_text_are_tapped(request_bytes: bytes, tapped: bool) -> None:
    with Upstream(answering(ok())) as upstream, proxied(upstream.url) as proxy:
        assert proxy.pipelined(request_bytes, len(ok())) == ok()
        until(lambda: proxy.metric(f'{REQUESTS}{{code="2xx",ended="complete"}}'))
        assert len(proxy.envelopes) == tapped


def test_what_is_not_sampled_is_not_held_but_its_errors_are_kept_from_their_head_on() -> None:
    error = ok(b'{"error": "why"}', status="429 Too Many Requests")
    with (
        Upstream(answering(ok(), error)) as upstream,
        proxied(upstream.url, sampler=NEVER) as proxy,
        proxy.connect() as client,
    ):
        for response in (ok(), error):
            client.sendall(post(b'{"secret": 1}'))
            assert exactly(client, len(response)) == response
        meta, parts = until(lambda: proxy.envelopes)[0]
        assert proxy.metric(f'{UNSAMPLED}{{tap="proxy",reason="rate"}}') == 1
    assert parts == [b"", b'{"error": "why"}']
    assert (meta["sampled"], meta["status"], meta["request_truncated"]) == ("kept", 429, True)
    assert not meta["response_truncated"]


def test_errors_are_not_kept_when_they_are_not_wanted() -> None:
    error = ok(status="500 No")
    silent = Sampler(0.0, keep_errors=False)
    with Upstream(answering(error)) as upstream, proxied(upstream.url, sampler=silent) as proxy:
        proxy.pipelined(post(), len(error))
        until(lambda: proxy.metric(f'{UNSAMPLED}{{tap="proxy",reason="rate"}}'))
        assert proxy.envelopes == []


def test_a_request_with_the_keep_header_is_kept_whole() -> None:
    with Upstream(answering(ok())) as upstream, proxied(upstream.url, sampler=NEVER, keep_header="X-Keep") as proxy:
        proxy.pipelined(post(b"{}", CHAT, "x-keep: 1"), len(ok()))
        meta, parts = until(lambda: proxy.envelopes)[0]
    assert (meta["sampled"], parts) == ("kept", [b"{}", b"{}"])


def test_a_stream_beyond_the_limit_keeps_its_beginning_and_its_end_and_passes_whole() -> None:
    events = [b'data: {"n": %d}\n\n' % n for n in range(20_000)]
    response = chunked(*events, b"data: [DONE]\n\n")
    with Upstream(answering(response)) as upstream, proxied(upstream.url, body_limit="10000B") as proxy:
        assert proxy.pipelined(post(b"x" * 10_001), len(response)) == response
        meta, (request, held) = until(lambda: proxy.envelopes)[0]
    assert (meta["request_truncated"], meta["response_truncated"]) == (True, True)
    assert request == b"x" * 10_000
    assert held.startswith(events[0]) and held.endswith(events[-1] + b"data: [DONE]\n\n")
    assert {line for line in held.split(b"\n") if line} <= {line for event in events for line in event.split(b"\n")} | {
        b"data: [DONE]"
    }
    assert len(held) < 10_000 + 40_000


def test_many_long_responses_at_once_are_held_only_as_far_as_there_is_memory() -> None:
    with Upstream(answering(ok(bytes(300_000)))) as upstream, proxied(upstream.url, queue_limit="200kB") as proxy:
        assert len(proxy.pipelined(post(), len(ok(bytes(300_000))))) == len(ok(bytes(300_000)))
        until(lambda: proxy.metric(f'{DROPPED}{{tap="proxy",reason="queue_full"}}') == 1)
        assert proxy.envelopes == []
        proxy.pipelined(post(), 1)


@pytest.mark.parametrize("sampler", [Sampler(), NEVER], ids=["sampled", "not sampled"])
def test_an_upstream_that_is_not_there_is_a_502_that_is_held_as_an_error(sampler: Sampler) -> None:
    with Upstream(lambda _: None) as gone:
        pass
    with proxied(gone.url, sampler=sampler) as proxy:
        response = proxy.exchange(post())
        head, _, body = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b'"message": "palegreen proxy: no connection to upstream: Connection refused"' in body
        meta, _ = until(lambda: proxy.envelopes)[0]
        assert (meta["status"], meta["ended"]) == (502, "error")
        assert proxy.metric(f'{REQUESTS}{{code="none",ended="error"}}') == 1


def test_an_upstream_that_cannot_be_reached_in_time_is_a_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palegreen.evaluators.taps.upstream.CONNECT_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than its backlog takes: further ones get no answer at all
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        proxy = stack.enter_context(proxied(f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        response = proxy.pipelined(post(), 10_000)
        assert response.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert b"no connection to upstream within 0.05 s" in response


def test_an_upstream_that_closes_without_a_response_is_a_502() -> None:
    def script(connection: Connection) -> None:
        connection.head()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy:
        assert b"upstream closed the connection without a response" in proxy.pipelined(post(), 10_000)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", 501),
        (get("/", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (get("/", "X: " + "a" * 70_000), 431),
        (b"\x16\x03\x01\x00\xa5\x01", 400),
    ],
)
def test_a_request_that_is_ambiguous_is_refused_and_never_reaches_upstream(request_bytes: bytes, status: int) -> None:
    with Upstream(answering(ok())) as upstream, proxied(upstream.url) as proxy:
        response = proxy.pipelined(request_bytes, 100_000)
        assert response.startswith(b"HTTP/1.1 %d " % status)
        assert b'{"error": {"message": "palegreen proxy: ' in response
        assert upstream.connections == []
        assert proxy.metric(f'{REQUESTS}{{code="{status // 100}xx",ended="complete"}}') == 1


def test_behind_a_good_request_an_ambiguous_one_is_refused_too() -> None:
    smuggled = post(b"0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n", CHAT, "Transfer-Encoding: chunked")
    with Upstream(answering(ok())) as upstream, proxied(upstream.url) as proxy:
        response = proxy.pipelined(post() + smuggled, 100_000)
        assert response.startswith(ok() + b"HTTP/1.1 400 ")
        assert b"admin" not in upstream.received


def test_a_response_that_is_no_http_is_relayed_as_it_is_and_counted_as_lost() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(2)
        connection.send(b"HTTP/1.1 200 OK\nhello")
        connection.head()
        connection.send(b"again")

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post())
        assert exactly(client, 21) == b"HTTP/1.1 200 OK\nhello"
        client.sendall(get("/next"))
        assert everything(client) == b"again"
        assert b"GET /next HTTP/1.1\r\nHost: 127.0.0.1" in upstream.received
        until(lambda: proxy.metric(f'{DROPPED}{{tap="proxy",reason="undecodable"}}') == 1)
        assert proxy.envelopes == []


def test_a_request_whose_chunks_are_broken_is_upstreams_to_judge() -> None:
    refused = ok(status="400 Bad Request")

    def script(connection: Connection) -> None:
        connection.head()
        connection.until(b"zz\r\n")
        connection.send(refused)

    broken = post(b"", CHAT, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"") + b"2\r\n{}\r\nzz\r\n"
    with Upstream(script) as upstream, proxied(upstream.url) as proxy:
        assert proxy.pipelined(broken, 10_000) == refused
        assert upstream.received.endswith(broken[-12:])


@pytest.mark.parametrize("part", ["sampler", "put", "tally"])
def test_a_defect_of_the_tap_is_counted_and_logged_once_and_the_relay_goes_on(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("with a secret")

    class Failing(Sampler):
        decide = fail

    responses = [ok(b"%d" % n) for n in range(3)]
    with (
        caplog.at_level(logging.WARNING),
        Upstream(answering(*responses)) as upstream,
        proxied(
            upstream.url, sampler=Failing() if part == "sampler" else None, put=fail if part == "put" else None
        ) as proxy,
    ):
        if part == "tally":
            monkeypatch.setattr(proxy.tally, "observe", fail)
        assert proxy.pipelined(post() * 3, len(b"".join(responses))) == b"".join(responses)
        until(lambda: proxy.metric(f'{DROPPED}{{tap="proxy",reason="tap_error"}}') >= 3)
    assert len(caplog.records) == 1
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_a_defect_in_reading_responses_only_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("palegreen.evaluators.taps.http1.parse_response", fail)
    responses = [ok(b"%d" % n) for n in range(3)]
    with Upstream(answering(*responses)) as upstream, proxied(upstream.url) as proxy:
        assert proxy.pipelined(post() * 3, len(b"".join(responses))) == b"".join(responses)
        assert proxy.metric(f'{DROPPED}{{tap="proxy",reason="tap_error"}}') == 1
    assert proxy.envelopes == []


@settings(max_examples=40)
@given(request_bytes=st.binary(max_size=200) | st.just(post()), response=st.binary(min_size=1, max_size=300))
def test_whatever_either_side_sends_the_client_gets_upstreams_bytes_and_the_proxy_lives(
    request_bytes: bytes, response: bytes
) -> None:
    def script(connection: Connection) -> None:
        connection.more()
        connection.send(response)

    with Upstream(script) as upstream, proxied(upstream.url) as proxy:
        with proxy.connect() as client:
            client.sendall(request_bytes)
            client.shutdown(socket.SHUT_WR)
            received = everything(client)
        assert (
            received == upstream.sent or received.startswith(upstream.sent + b"HTTP/1.1 ") or not upstream.connections
        )
        assert proxy.metric(f'{DROPPED}{{tap="proxy",reason="tap_error"}}') == 0
