"""A threaded HTTP server on 127.0.0.1 that answers as a test says, also wrongly, slowly or never."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from threading import Event, Lock, Thread
from typing import Self

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Link:
    """One connection as an answer sees it; `wait` ends early when the server stops."""

    def __init__(self, connection: socket.socket, stopped: Event) -> None:
        self._connection = connection
        self._stopped = stopped
        self.sent = 0

    def send(self, data: bytes) -> None:
        """Send bytes; raises OSError once the client is gone."""
        self._connection.sendall(data)
        self.sent += len(data)

    def wait(self, seconds: float) -> bool:
        """Pass time; False when the server stops."""
        return not self._stopped.wait(seconds)


Answer = bytes | Callable[[Link], None]


def response(
    body: str | bytes, kind: str = PROMETHEUS, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """A complete HTTP answer."""
    raw = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": kind, "Content-Length": str(len(raw)), "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + raw


NOT_FOUND = response("not found", "text/plain", "404 Not Found")


def drip(data: bytes, head: bytes = b"", every: float = 0.05) -> Callable[[Link], None]:
    """Send `head` at once and then a byte at a time, for as long as somebody reads."""

    def answer(link: Link) -> None:
        link.send(head)
        for byte in data:
            if not link.wait(every):
                return
            link.send(bytes([byte]))

    return answer


def hang(link: Link) -> None:
    """Accept a request and never answer it."""
    while link.wait(60):
        pass


class Server:
    """Answers by path. `answers` may be changed while it runs; `requests` are the paths and headers seen."""

    def __init__(self, answers: Mapping[str, Answer], port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answers = dict(answers)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.links: list[Link] = []
        self._tls = tls
        self._stopped = Event()
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def stop(self) -> None:
        """Refuse connections from now on and drop those that are open."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(10)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            thread = Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        connection = raw
        try:
            with contextlib.suppress(OSError):
                raw.settimeout(30)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(raw, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    received = connection.recv(65536)
                    if not received:
                        return
                    head += received
                self._answer(connection, head)
        finally:
            with self._lock:
                self._open.discard(raw)
            connection.close()
            raw.close()

    def _answer(self, connection: socket.socket, head: bytes) -> None:
        request, *fields = head.decode("latin-1").split("\r\n")
        path = request.split(" ")[1]
        pairs = (field.partition(":") for field in fields if field)
        self.requests.append((path, {name.lower(): value.strip() for name, _, value in pairs}))
        answer = self.answers.get(path, NOT_FOUND)
        link = Link(connection, self._stopped)
        self.links.append(link)
        if isinstance(answer, bytes):
            link.send(answer)
        else:
            answer(link)
