"""The ASGI tap inside a real server, and its hand-over to the evaluator."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.asgi import Receiver, Uvicorn, config, metrics, request
from support.waiting import until

from palegreen.inprocess.asgi import Tap
from palegreen.inprocess.frame import encode
from palegreen.runtime.web import ListenError

DROPPED = 'palegreen_tap_dropped_total{tap="asgi",reason="sender_dropped"}'
RECEIVED = 'palegreen_tap_received_total{tap="asgi"}'
UNSAMPLED = 'palegreen_tap_unsampled_total{{tap="asgi",reason="{}"}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tap.sock"


@pytest.fixture
def receiver(path: Path) -> Iterator[Receiver]:
    with Receiver(path) as running:
        yield running


async def body_of(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


class Model:
    """Answers as the path says; `go` lets a stream continue, `events` is what happened, in order."""

    def __init__(self) -> None:
        self.go = Event()
        self.ended = Event()
        self.events: list[str] = []
        self.failure: BaseException = RuntimeError("secret words of a user")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append(scope["type"])
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            await self._serve(scope, receive, send)
        finally:
            self.ended.set()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        route = scope["path"].rpartition("/")[2]
        body = await body_of(receive)
        if route == "fails":
            raise self.failure
        status = int(route) if route.isdigit() else 200
        kind = b"text/event-stream" if route in ("stream", "breaks", "endless") else b"application/json"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        match route:
            case "stream":
                for number in range(20):
                    await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            case "breaks":
                await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
                raise self.failure
            case "endless":
                await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
                while (await receive())["type"] != "http.disconnect":
                    pass
            case "steps":
                await send({"type": "http.response.body", "body": b"one", "more_body": True})
                await asyncio.to_thread(self.go.wait, 10)
                await send({"type": "http.response.body", "body": b"two"})
            case _:
                await send({"type": "http.response.body", "body": b"answer to " + body})


def without_date(answer: bytes) -> bytes:
    return re.sub(rb"date: [^\r]+\r\n", b"", answer)


@pytest.mark.parametrize("route", ["plain", "stream", "404", "fails", "breaks"])
def test_every_byte_that_a_client_gets_is_the_same_with_and_without_the_tap(
    route: str, path: Path, receiver: Receiver
) -> None:
    with Uvicorn(Model()) as bare:
        expected = bare.exchange(b"question", f"/v1/{route}")
    with Uvicorn(Tap(Model(), socket=str(path))) as tapped:
        assert without_date(tapped.exchange(b"question", f"/v1/{route}")) == without_date(expected)
    receiver.wait()


def test_a_record_holds_what_was_asked_and_answered_and_when(path: Path, receiver: Receiver) -> None:
    with Uvicorn(Tap(Model(), socket=str(path))) as server:
        server.exchange(
            b"question", "/v1/stream?a=b", content_type="application/json", authorization="Bearer secret",
            cookie="secret", traceparent="00-1-2-01", x_session_id="s1",
        )  # fmt: skip
    (meta, (asked, answered)) = receiver.wait()[0]
    assert asked == b"question"
    assert answered == b"".join(b"data: %d\n\n" % number for number in range(20))
    arrivals, duration, began = meta.pop("arrivals"), meta.pop("duration"), meta.pop("time")
    assert meta == {
        "tap": "asgi", "kind": "http", "sampled": "rate", "method": "POST", "path": "/v1/stream?a=b", "status": 200,
        "request_headers": {"content-type": "application/json", "traceparent": "00-1-2-01", "x-session-id": "s1"},
        "response_headers": {"content-type": "text/event-stream"}, "ended": "complete", "session": "s1",
    }  # fmt: skip
    offsets, times = zip(*arrivals, strict=True)
    assert offsets == (9, 18, 27, 36, len(answered))
    assert list(times) == sorted(times)
    assert times[-1] <= duration
    assert began > 1e9


def test_a_chunk_reaches_the_client_before_the_next_one_is_made(path: Path, receiver: Receiver) -> None:
    model = Model()
    with Uvicorn(Tap(model, socket=str(path))) as server, server.connect() as client:
        client.sendall(request(b"", "/v1/steps"))
        answer = b""
        while b"one" not in answer:
            answer += client.recv(65536)
        assert b"two" not in answer
        assert not receiver.envelopes
        model.go.set()
        while data := client.recv(65536):
            answer += data
        assert b"two" in answer
    assert receiver.wait()[0].parts[1] == b"onetwo"


def test_a_client_that_goes_away_is_an_abort_with_what_it_had_got(path: Path, receiver: Receiver) -> None:
    model = Model()
    with Uvicorn(Tap(model, socket=str(path))) as server:
        with server.connect() as client:
            client.sendall(request(b"q", "/v1/endless"))
            answer = b""
            while b"data: 1" not in answer:
                answer += client.recv(65536)
        envelope = receiver.wait()[0]
    assert (envelope.meta["ended"], envelope.meta["status"]) == ("client_abort", 200)
    assert envelope.parts == [b"q", b"data: 1\n\n"]


@pytest.mark.parametrize(("route", "ended", "status"), [("fails", "error", None), ("breaks", "interrupted", 200)])
def test_an_exception_passes_through_as_it_is_and_is_recorded(
    route: str, ended: str, status: int | None, path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    model, caught = Model(), []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        try:
            await tap(scope, receive, send)
        except RuntimeError as failure:
            caught.append(failure)

    tap = Tap(model, socket=str(path))
    with Uvicorn(outer) as server:
        server.exchange(b"q", f"/v1/{route}")
    assert caught == [model.failure]
    meta, parts = receiver.wait()[0]
    assert (meta["ended"], meta.get("status")) == (ended, status)
    assert parts[0] == (b"" if ended == "error" else b"q")
    assert "secret words" not in caplog.text


def test_errors_are_kept_without_the_request_and_refusals_not_at_all(path: Path, receiver: Receiver) -> None:
    with Uvicorn(Tap(Model(), socket=str(path), sample_rate=0)) as server:
        for route in ("401", "403", "302", "plain", "400", "503"):
            server.exchange(b"question", f"/v1/{route}")
        found = receiver.wait(2)
        until(lambda: receiver.metric(UNSAMPLED.format("rate")) == 4)
    assert [(e.meta["status"], e.meta["sampled"], e.parts[0]) for e in found] == [
        (400, "kept", b""),
        (503, "kept", b""),
    ]
    assert receiver.metric(RECEIVED) == 6


def test_of_what_is_sampled_refusals_count_as_not_to_be_scored(path: Path, receiver: Receiver) -> None:
    with Uvicorn(Tap(Model(), socket=str(path))) as server:
        for route in ("401", "302"):
            server.exchange(b"question", f"/v1/{route}")
        until(lambda: receiver.metric(UNSAMPLED.format("status")) == 2)
    assert not receiver.envelopes


def test_a_tagged_request_is_kept_whatever_the_rate(path: Path, receiver: Receiver) -> None:
    with Uvicorn(Tap(Model(), socket=str(path), sample_rate=0)) as server:
        server.exchange(b"q", x_palegreen_keep="1")
    meta, parts = receiver.wait()[0]
    assert (meta["sampled"], parts) == ("kept", [b"q", b"answer to q"])


def test_only_posts_are_looked_at(path: Path, receiver: Receiver) -> None:
    with Uvicorn(Tap(Model(), socket=str(path))) as server:
        server.exchange(b"", "/health", "GET")
        server.exchange(b"q")
        receiver.wait()
    assert len(receiver.envelopes) == receiver.metric(RECEIVED) == 1


def test_lifespan_and_websocket_scopes_get_the_very_receive_and_send_of_the_server(path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    tap = Tap(app, socket=str(path))
    for kind in ("lifespan", "websocket"):
        given = ({"type": kind}, object(), object())
        asyncio.run(tap(*given))
        assert seen.pop() == given


def test_bodies_are_held_up_to_the_limit_and_marked(path: Path, receiver: Receiver) -> None:
    with Uvicorn(Tap(Model(), socket=str(path), body_limit=100)) as server:
        answer = server.exchange(b"x" * 1000)
    assert b"x" * 1000 in answer
    meta, parts = receiver.wait()[0]
    assert [len(part) for part in parts] == [100, 100]
    assert (meta["request_truncated"], meta["response_truncated"]) == (True, True)
    assert meta["arrivals"][-1][0] == 1010


def test_records_for_nobody_are_bounded_dropped_and_told_when_somebody_comes(path: Path) -> None:
    with Uvicorn(Tap(Model(), socket=str(path))) as server:
        for _ in range(10):
            assert b"x" * 500_000 in server.exchange(b"x" * 500_000)
        with Receiver(path) as receiver:
            until(lambda: receiver.metric(RECEIVED) == 10 and receiver.metric(DROPPED))
            until(lambda: len(receiver.envelopes) + receiver.metric(DROPPED) == 10)
            assert all(len(envelope.parts[0]) == 500_000 for envelope in receiver.envelopes)


def test_a_listener_that_never_reads_and_then_dies_costs_records_that_are_counted(path: Path) -> None:
    with Uvicorn(Tap(Model(), socket=str(path))) as server:
        with socket.socket(socket.AF_UNIX) as stalled:
            stalled.bind(str(path))
            stalled.listen(8)
            for _ in range(40):
                assert b"x" * 100_000 in server.exchange(b"x" * 100_000)
            taken, _ = stalled.accept()
            taken.close()
        path.unlink()
        with Receiver(path) as receiver:
            until(lambda: receiver.metric(RECEIVED) == 40)
            until(lambda: len(receiver.envelopes) + receiver.metric(DROPPED) == 40)
            assert receiver.metric(DROPPED) > 0
            assert receiver.envelopes


def test_an_evaluator_that_comes_back_gets_records_again(path: Path) -> None:
    with Uvicorn(Tap(Model(), socket=str(path))) as server:
        for number in range(3):
            with Receiver(path) as receiver:
                server.exchange(b"%d" % number)
                assert receiver.wait()[0].parts[0] == b"%d" % number
                assert receiver.metric(DROPPED) == 0


def test_forked_workers_each_have_a_connection_of_their_own(path: Path, receiver: Receiver) -> None:
    async def once(tap: Tap, question: bytes) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": question}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/v1/plain", "headers": [], "query_string": b""}
        await tap(scope, receive, send)
        for _ in range(len(receiver.envelopes), 100):
            await asyncio.sleep(0.01)

    tap = Tap(Model(), socket=str(path))
    asyncio.run(once(tap, b"parent"))
    child = os.fork()
    if not child:
        try:
            asyncio.run(once(tap, b"child"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    asyncio.run(once(tap, b"parent again"))
    assert {envelope.parts[0] for envelope in receiver.wait(3)} == {b"parent", b"child", b"parent again"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SOCKET": ""}, "PALEGREEN_TAP_SOCKET is not set"),
        ({"SAMPLE_RATE": "much"}, "PALEGREEN_TAP_SAMPLE_RATE: got 'much'; allowed: a number from 0 to 1"),
        ({"BODY_LIMIT": "1MiB"}, "PALEGREEN_TAP_BODY_LIMIT: got '1MiB'; allowed: bytes"),
        ({"KEEP_ERRORS": "often"}, "PALEGREEN_TAP_KEEP_ERRORS: got 'often'; allowed: true, false"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line_and_serving_goes_on(
    given: dict[str, str], told: str, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in ({"SOCKET": str(path)} | given).items():
        monkeypatch.setenv(f"PALEGREEN_TAP_{name}", value)
    tap = Tap(Model())
    assert [told in record.getMessage() for record in caplog.records] == [True]
    with Uvicorn(tap) as server:
        assert b"answer to q" in server.exchange(b"q")


def test_variables_configure_it_as_vllm_makes_it(
    path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALEGREEN_TAP_SOCKET", str(path))
    monkeypatch.setenv("PALEGREEN_TAP_BODY_LIMIT", "5")
    monkeypatch.setenv("PALEGREEN_TAP_SESSION_HEADER", "X-Chat")
    with Uvicorn(Tap(Model())) as server:
        server.exchange(b"question", x_chat="c7")
    meta, parts = receiver.wait()[0]
    assert (meta["session"], parts[0]) == ("c7", b"quest")


def test_an_application_that_breaks_the_protocol_is_served_as_without_the_tap(
    path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    passed: list[Any] = []

    async def odd(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": "fine", "headers": None})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        passed.append(message)

    async def serve(tap: Tap) -> None:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
        await tap(scope, send, send)

    asyncio.run(serve(Tap(odd, socket=str(path))))
    assert [message["type"] for message in passed] == ["http.response.start", "http.response.body"]
    assert "the ASGI tap lost a record" in caplog.text


def test_a_server_that_has_no_file_descriptor_left_serves_all_the_same(path: Path, receiver: Receiver) -> None:
    async def serve() -> list[bytes]:
        sent: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"q"}

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))

        scope = {"type": "http", "method": "POST", "path": "/v1/plain", "headers": []}
        tap = Tap(Model(), socket=str(path))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            await tap(scope, receive, send)
            await asyncio.sleep(0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await asyncio.to_thread(receiver.wait)
        return sent

    assert asyncio.run(serve()) == [b"", b"answer to q"]
    assert receiver.metric(DROPPED) == 0


@pytest.mark.parametrize(
    "bad",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        encode({"tap": "asgi", "kind": "http"}, [b"one part"]),
        encode({"tap": "proxy", "kind": "http"}, [b"", b""]),
        encode({"tap": "asgi", "kind": "counts", "counts": {"received": -1}}),
        encode({"tap": "asgi", "kind": "counts", "counts": [1]}),
    ],
)
def test_a_peer_that_sends_something_else_is_closed(bad: bytes, path: Path, receiver: Receiver) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(path))
        peer.sendall(bad)
        assert peer.recv(1) == b""
    assert not receiver.envelopes
    assert not metrics(receiver.tally)


def test_a_record_that_its_process_did_not_finish_counts_as_dropped(path: Path, receiver: Receiver) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(encode({"tap": "asgi", "kind": "http"}, [b"a", b"b"])[:-1])
    until(lambda: receiver.metric(DROPPED) == 1)


def test_the_socket_can_be_used_by_its_group_and_is_gone_in_the_end(path: Path) -> None:
    with Receiver(path):
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()


def test_a_socket_that_a_dead_process_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Receiver(path), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(path))
        peer.sendall(encode({"tap": "asgi", "kind": "counts"}))
        assert peer.recv(1) == b"\0"


def test_an_address_that_cannot_be_had_is_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    with Receiver(path), pytest.raises(ListenError, match=r"^tap_socket .*tap.sock: in use by another process$"):
        Receiver(path).__enter__()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ListenError, match="there is a file that is no socket"):
        Receiver(tmp_path / "file").__enter__()
    with pytest.raises(ListenError, match="No such file or directory"):
        Receiver(tmp_path / "no" / "folder").__enter__()
    with pytest.raises(ListenError, match="too long"):
        Receiver(tmp_path / ("x" * 200)).__enter__()
    assert (tmp_path / "file").read_text() == "precious"
    assert config(path).tap_socket == path
