"""The proxy through real sockets: bytes to the client are bytes from upstream, whatever they are."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
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

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.taps.proxy import Proxy
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

VARIANTS = {
    "content-length": (get(), ok(b"hello")),
    "no body": (get(), b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": (get(), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    "head": (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
    "chunked": (post(), chunked(b"data: a\n\n", b"data: b\n\n")),
    "chunks with extensions and trailers": (
        post(),
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3 ; a="b;c";d\r\nabc\r\n0;last\r\nX: 1\r\nY:2\r\n\r\n',
    ),
    "early hints": (get(), EARLY_HINTS + EARLY_HINTS + ok(b"hello")),
    "odd but valid head": (
        get(),
        b"HTTP/1.1 200\r\nx-EMPTY:\r\nX-Two:  a\tb \r\nx-two: \xe9\r\ncontent-length:0\r\n\r\n",
    ),
    "server error": (post(), ok(b'{"error":{}}', status="500 Oh No")),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_on_a_kept_connection_the_client_gets_the_bytes_that_upstream_sent(name: str) -> None:
    request, response = VARIANTS[name]
    with Upstream(answering(response, response, response)) as upstream, proxied(upstream.url) as proxy:
        with proxy.connect() as client:
            for _ in range(3):
                client.sendall(request)
                assert exactly(client, len(response)) == response
        assert len(upstream.connections) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_a_response_that_ends_the_connection_ends_it_for_the_client_too(response: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(response)

    with Upstream(script) as upstream, proxied(upstream.url) as proxy:
        assert proxy.exchange(get()) == response
        until(lambda: proxy.metric('palegreen_proxy_requests_total{code="2xx",ended="complete"}') == 1)


def test_a_client_of_http_1_0_gets_its_response_and_the_end() -> None:
    with Upstream(answering(ok(b"hello"))) as upstream, proxied(upstream.url) as proxy:
        assert proxy.exchange(b"GET / HTTP/1.0\r\n\r\n") == ok(b"hello")
        assert upstream.received.endswith(b"HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n\r\n" % upstream.port)


def test_requests_reach_upstream_as_they_were_but_for_host_and_path() -> None:
    body = b'7;x=y\r\n{"a": 1\r\n1\r\n}\r\n0\r\nT: 1\r\n\r\n'
    request = (
        b"POST /v1/chat/completions?x=%2F HTTP/1.1\r\nHOST: public.example\r\nauthorization:  Bearer a\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\nTransfer-Encoding: chunked\r\nAccept:\r\n\r\n" + body
    )

    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(len(body))
        connection.send(ok())

    with Upstream(script) as upstream, proxied(f"{upstream.url}/api/") as proxy, proxy.connect() as client:
        client.sendall(request)
        assert exactly(client, len(ok())) == ok()
        wanted = request.replace(b"POST /v1", b"POST /api/v1")
        assert upstream.received == wanted.replace(b"HOST: public.example", b"Host: 127.0.0.1:%d" % upstream.port)
        assert [part.decode() for part in until(lambda: proxy.envelopes)[0].parts] == ['{"a": 1}', "{}"]


def test_a_target_meant_for_a_forward_proxy_loses_its_host() -> None:
    with Upstream(answering(ok())) as upstream, proxied(upstream.url) as proxy:
        proxy.exchange(b"GET http://elsewhere/a/b?c HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n")
        assert upstream.received.startswith(b"GET /a/b?c HTTP/1.1\r\nHost: 127.0.0.1:")


def test_pipelined_requests_are_answered_in_order_by_one_upstream_connection() -> None:
    responses = [ok(b"%d" % n * (n + 1)) for n in range(5)]
    requests = b"".join(post(b'{"n": %d}' % n) for n in range(5))
    with Upstream(answering(*responses)) as upstream, proxied(upstream.url) as proxy:
        assert proxy.pipelined(requests, len(b"".join(responses))) == b"".join(responses)
        until(lambda: len(proxy.envelopes) == 5)
        assert [envelope.parts[0] for envelope in proxy.envelopes] == [b'{"n": %d}' % n for n in range(5)]
        assert len(upstream.connections) == 1


def test_a_request_that_expects_100_continue_gets_it_from_upstream() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.exactly(2)
        connection.send(ok(b"done"))
        connection.wait_for_end()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post(b"", CHAT, "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 2"))
        assert exactly(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert exactly(client, len(ok(b"done"))) == ok(b"done")
        assert until(lambda: proxy.envelopes)[0].meta["status"] == 200
        assert until(lambda: upstream.sent == b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"done"))


def test_after_101_both_sides_talk_as_they_like_and_may_half_close() -> None:
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(switched + b"\x00hello")
        connection.exactly(6)
        connection.wait_for_end()
        connection.send(b"\xffbye")

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(get("/", "Upgrade: echo", "Connection: upgrade") + b"\r\n\x00")
        assert exactly(client, len(switched) + 6) == switched + b"\x00hello"
        client.sendall(b"\n\x01\x02")
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"\xffbye"
        assert upstream.received.endswith(b"\r\n\r\n\r\n\x00\n\x01\x02")


def test_a_connection_that_upstream_closes_while_idle_stays_open_for_the_client() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(ok(b"hello"))

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        for _ in range(3):
            client.sendall(get())
            assert exactly(client, len(ok(b"hello"))) == ok(b"hello")
            until(lambda: upstream.connections[-1].sock.fileno() < 0)
            proxy.settle()
        assert len(upstream.connections) == 3


def test_upstream_that_closes_a_used_connection_under_a_request_closes_it_for_the_client_who_asks_again() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(ok())
        connection.head()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(get())
        assert exactly(client, len(ok())) == ok()
        client.sendall(get())
        assert everything(client) == b""
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("stage", ["before the response", "in the response"])
def test_a_client_that_goes_ends_upstreams_connection(stage: str) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(2)
        if stage == "in the response":
            connection.send(chunked(b"data: 1\n\n", end=b""))
        connection.wait_for_end()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy:
        with proxy.connect() as client:
            client.sendall(post())
            if stage == "in the response":
                exactly(client, len(chunked(b"data: 1\n\n", end=b"")))
            until(lambda: upstream.received.endswith(b"{}"))
        until(lambda: upstream.connections[0].closed.is_set())
        assert until(lambda: proxy.envelopes)[0].meta["ended"] == "client_abort"


def test_a_client_that_half_closes_still_gets_its_response() -> None:
    release = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        connection.wait_for_end()
        release.wait(10)
        connection.send(ok(b"late"))

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post())
        client.shutdown(socket.SHUT_WR)
        until(lambda: upstream.connections and upstream.connections[0].closed.is_set())
        release.set()
        assert everything(client) == ok(b"late")
        assert until(lambda: proxy.envelopes)[0].meta["ended"] == "complete"


def test_a_client_that_ends_inside_a_pipelined_head_gets_what_it_asked_for_and_the_end() -> None:
    with Upstream(answering(ok(), ok())) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post() * 2 + b"GET / HT")
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == ok() * 2


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize(
    "part",
    [chunked(b"data: 1\n\n", end=b""), ok(b"12345")[:-2], b"HTTP/1.1 200 OK\r\nContent-"],
    ids=["chunked", "sized", "head"],
)
def test_upstream_that_dies_in_a_response_ends_the_clients_connection(how: str, part: bytes) -> None:
    read = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(2)
        connection.send(part)
        read.wait(10)
        if how == "resets":
            connection.reset()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post())
        assert exactly(client, len(part)) == part
        read.set()
        assert everything(client) == b""
        meta = until(lambda: proxy.envelopes)[0].meta
        assert (meta["ended"], meta["sampled"]) == ("interrupted", "rate")


def test_a_slow_client_slows_upstream_down_and_nothing_piles_up() -> None:
    size = 64 << 20
    sent = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(2)
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(64):
            connection.sock.sendall(bytes(1 << 20))
        sent.set()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post())
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        assert exactly(client, len(head)) == head
        assert not sent.wait(0.5)  # all buffers between the two are full: kernel's and ours
        assert len(exactly(client, size)) == size
        envelope = until(lambda: proxy.envelopes)[0]
        assert envelope.meta["response_truncated"]
        assert len(envelope.parts[1]) == EvaluateConfig().body_limit


def test_an_upstream_that_does_not_read_slows_the_client_down() -> None:
    go, size = threading.Event(), 32 << 20

    def script(connection: Connection) -> None:
        connection.head()
        go.wait(10)
        connection.exactly(size)
        connection.send(ok(b"done"))
        connection.wait_for_end()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        head, _ = post().split(b"Content-Length")
        upload = threading.Thread(
            target=client.sendall, args=(head + b"Content-Length: %d\r\n\r\n" % size + bytes(size),)
        )
        upload.start()
        until(lambda: upstream.connections)
        upload.join(0.5)
        assert upload.is_alive()
        go.set()
        assert exactly(client, len(ok(b"done"))) == ok(b"done")
        upload.join(10)
        assert upstream.received.endswith(bytes(size))


def test_an_empty_success_for_a_client_that_has_hung_up_is_its_abort() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(2)
        connection.wait_for_end()
        connection.send(ok(b""))

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post())
        client.shutdown(socket.SHUT_WR)
        assert until(lambda: proxy.envelopes)[0].meta["ended"] == "client_abort"


def test_a_stream_of_ten_thousand_chunks_passes_and_is_held_without_its_framing() -> None:
    events = [b'data: {"n": %d}\n\n' % n for n in range(10_000)]
    response = chunked(*events)

    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(2)
        at = 0
        while at < len(response):  # in pieces of all sizes
            connection.send(response[at : at + 1 + at % 97])
            at += 1 + at % 97
        connection.wait_for_end()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post())
        assert exactly(client, len(response)) == response
        assert until(lambda: upstream.sent == response)
        meta, parts = until(lambda: proxy.envelopes)[0]
        assert parts == [b"{}", b"".join(events)]
        assert [offset for offset, _ in meta["arrivals"]][-1] == len(parts[1])
        assert len(meta["arrivals"]) == 9


def test_an_early_response_passes_while_the_request_is_still_on_its_way() -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(ok(b"too much", status="413 Content Too Large"))
        connection.exactly(10)
        connection.head()
        connection.send(ok(b"next"))
        connection.wait_for_end()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(post(bytes(10))[:-4])
        early = ok(b"too much", status="413 Content Too Large")
        assert exactly(client, len(early)) == early
        client.sendall(bytes(4) + get())
        assert exactly(client, len(ok(b"next"))) == ok(b"next")


def test_draining_lets_responses_finish_and_closes_what_is_idle() -> None:
    go = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(chunked(b"one", end=b""))
        go.wait(10)
        connection.send(b"0\r\n\r\n")
        connection.wait_for_end()

    with Upstream(script) as upstream, proxied(upstream.url) as proxy:
        with proxy.connect() as busy, proxy.connect() as idle:
            busy.sendall(get())
            exactly(busy, len(chunked(b"one", end=b"")))
            stopping = threading.Thread(target=proxy.stop, args=(20.0,))
            stopping.start()
            assert everything(idle) == b""
            with pytest.raises(ConnectionRefusedError):
                proxy.connect()
            go.set()
            assert everything(busy) == b"0\r\n\r\n"
        stopping.join(10)
        assert not stopping.is_alive()


def test_a_drain_ends_after_its_time() -> None:
    silent = Upstream(lambda connection: connection.wait_for_end())
    with silent as upstream, proxied(upstream.url) as proxy, proxy.connect() as client:
        client.sendall(get())
        until(lambda: upstream.connections)
        proxy.stop(0.1)
        assert everything(client) == b""


def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = f"cannot listen on {address}: Address already in use"
        with pytest.raises(ListenError, match=message), proxied("http://127.0.0.1:1", proxy_address=address):
            pass


def ignored(_: Any) -> None:
    """Where nothing is held."""


def test_a_url_that_cannot_be_sent_to_is_refused_in_one_line() -> None:
    config = EvaluateConfig(upstream="http://höst:80", proxy_address="127.0.0.1:0")
    with pytest.raises(ValueError, match="allowed: ASCII"):
        Proxy(config, Sampler(), ignored, Tally())
