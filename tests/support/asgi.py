"""A plain ASGI application behind a real uvicorn, and the evaluator's end of the tap's socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from threading import Thread
from typing import Any, Self

import uvicorn

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.taps.handoff import Handoff
from palegreen.runtime.exposition import Exposition
from palegreen.runtime.tally import Tally
from support.waiting import until

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def config(path: Path) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"tap_socket": path})


def metrics(tally: Tally) -> dict[str, float]:
    """What a tally shows: value by series, without the common labels."""
    lines = Exposition([tally.readings()]).body().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {
        name.replace('endpoint="",instance_id="",namespace="",pod="",', ""): float(value) for name, _, value in pairs
    }


class Receiver:
    """A real Handoff with a loop of its own; `envelopes` are what it put."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.envelopes: list[Envelope] = []
        self.tally = Tally(("", "", "", ""))
        self._loop = asyncio.new_event_loop()
        self._handoff = Handoff(config(path), self.envelopes.append, self.tally)
        self._thread = Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._handoff.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._handoff.stop())
        self._do(asyncio.sleep(0.05))  # connections end
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def metric(self, name: str) -> float:
        return metrics(self.tally).get(name, 0.0)

    def wait(self, count: int = 1) -> list[Envelope]:
        until(lambda: len(self.envelopes) >= count)
        return self.envelopes

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)


class Uvicorn:
    """Serves `app` on a port of its own in a thread."""

    def __init__(self, app: App, http: str = "h11") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(app, http=http, ws="none", log_config=None, log_level="critical", lifespan="auto")
        )
        self._thread = Thread(target=lambda: self._server.run([self._listener]), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def connect(self) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", self.port))
        found.settimeout(10)
        return found

    def exchange(
        self, body: bytes = b"{}", path: str = "/v1/chat/completions", method: str = "POST", **headers: str
    ) -> bytes:
        """Every byte of the answer to one request; underscores in names of headers are hyphens."""
        with self.connect() as client:
            client.sendall(request(body, path, method, **headers))
            answer = b""
            while data := client.recv(65536):
                answer += data
        return answer


def request(body: bytes, path: str = "/v1/chat/completions", method: str = "POST", **headers: str) -> bytes:
    fields = {"host": "test", "connection": "close", "content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body
