"""A proxy in a thread, an upstream that plays a script on raw sockets, and clients that speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.taps.exchange import BUCKETS
from palegreen.evaluators.taps.proxy import Proxy
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.runtime.exposition import Exposition
from palegreen.runtime.tally import Tally

CHAT = "/v1/chat/completions"


class Connection:
    """One connection of an upstream: what it received and sent, to the byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.sent = b""
        self.closed = threading.Event()  # the other side has closed
        self._at = 0

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.sent += data

    def head(self) -> bytes:
        """The next request's head; raises EOFError when there is none."""
        return self.until(b"\r\n\r\n")

    def until(self, mark: bytes) -> bytes:
        """What comes up to and with `mark`."""
        while (end := self.received.find(mark, self._at)) < 0:
            self.more()
        begin, self._at = self._at, end + len(mark)
        return self.received[begin : self._at]

    def exactly(self, size: int) -> bytes:
        while len(self.received) < self._at + size:
            self.more()
        begin, self._at = self._at, self._at + size
        return self.received[begin : self._at]

    def more(self) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed.set()
            raise EOFError
        self.received += data

    def wait_for_end(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                self.more()

    def reset(self) -> None:
        """Close without a farewell."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


class Upstream:
    """Plays `script` on each connection, which closes behind it."""

    def __init__(self, script: Callable[[Connection], None], tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self.connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def received(self) -> bytes:
        return b"".join(each.received for each in self.connections)

    @property
    def sent(self) -> bytes:
        return b"".join(each.sent for each in self.connections)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._play, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _play(self, raw: socket.socket) -> None:
        raw.settimeout(20)
        sock = raw
        with raw, contextlib.suppress(OSError, EOFError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True)
            connection = Connection(sock)
            self.connections.append(connection)
            self._script(connection)
        sock.close()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(10)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(25)
            assert not thread.is_alive()


def answering(*responses: bytes) -> Callable[[Connection], None]:
    """A script: one response to each request, whose bodies have a Content-Length; then wait for the other side."""

    def script(connection: Connection) -> None:
        for response in responses:
            head = connection.head().lower()
            if b"content-length: " in head:
                connection.exactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            connection.send(response)
        connection.wait_for_end()

    return script


class Running:
    """A proxy that runs in a thread of its own."""

    def __init__(self, config: EvaluateConfig, sampler: Sampler, put: Callable[[Envelope], None] | None) -> None:
        self.envelopes: list[Envelope] = []
        self.tally = Tally(("", "", "", ""), BUCKETS)
        self.proxy = Proxy(config, sampler, put or self.envelopes.append, self.tally)
        self.failures: list[dict[str, Any]] = []  # exceptions that nobody caught
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self.call(self.proxy.start())
        except BaseException:
            self._end()
            raise
        self.port = self.proxy.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def exchange(self, request: bytes) -> bytes:
        """What comes for it until the connection ends; the client sends no more."""
        with self.connect() as client:
            client.sendall(request)
            return everything(client)

    def pipelined(self, requests: bytes, size: int) -> bytes:
        """The first `size` bytes that come for them, on a connection that stays open."""
        with self.connect() as client:
            client.sendall(requests)
            return exactly(client, size)

    def settle(self) -> None:
        """Let the proxy see what has happened on its sockets so far."""
        for _ in range(3):
            self.call(asyncio.sleep(0.01))

    def metric(self, line: str) -> float:
        """Value of a series, by how it is written without the common labels; 0 if there is none."""
        text = self.exposition()
        plain = text.replace('endpoint="",instance_id="",namespace="",pod="",', "").replace(
            '{endpoint="",instance_id="",namespace="",pod=""}', ""
        )
        return next((float(each.split()[-1]) for each in plain.splitlines() if each.startswith(f"{line} ")), 0.0)

    def exposition(self, *, openmetrics: bool = False) -> str:
        """All that was counted."""
        return Exposition([self.tally.readings()]).body(openmetrics=openmetrics).decode()

    def stop(self, grace: float = 0.0) -> None:
        if self._thread.is_alive():
            self.call(self.proxy.stop(grace))
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def proxied(
    upstream: str,
    *,
    sampler: Sampler | None = None,
    put: Callable[[Envelope], None] | None = None,
    **config: Any,
) -> Iterator[Running]:
    """A proxy in front of `upstream` with what else is configured."""
    running = Running(
        EvaluateConfig(**{"upstream": upstream, "proxy_address": "127.0.0.1:0", **config}), sampler or Sampler(), put
    )
    try:
        yield running
    finally:
        running.stop()
    assert running.failures == []


def everything(client: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            parts.append(data)
    return b"".join(parts)


def exactly(client: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the other side closes."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def get(path: str = "/", *fields: str) -> bytes:
    """A request without a body."""
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: here", *fields, "")).encode()


def post(body: bytes = b"{}", path: str = CHAT, *fields: str) -> bytes:
    """A request with one."""
    head = (f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json", *fields)
    return "".join(f"{line}\r\n" for line in (*head, f"Content-Length: {len(body)}", "")).encode() + body


def ok(body: bytes = b"{}", *fields: str, status: str = "200 OK") -> bytes:
    """A response with a Content-Length."""
    head = (f"HTTP/1.1 {status}", "Content-Type: application/json", *fields, f"Content-Length: {len(body)}", "")
    return "".join(f"{line}\r\n" for line in head).encode() + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", kind: str = "text/event-stream") -> bytes:
    """A chunked response."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end
