"""An HTTP server on 127.0.0.1 that speaks JSON, as a test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, NamedTuple, Self


class Asked(NamedTuple):
    """One request. `body` is its JSON, None where there is none."""

    path: str
    headers: dict[str, str]
    body: Any


Handler = Callable[[Asked], tuple[int, Any]]
"""Status and what is sent: bytes as they are, None for no answer until the server stops, anything else as JSON."""


class JsonServer:
    """`handler` may be changed while it runs; `asked` holds the requests in order."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[Asked] = []
        self._stopped = Event()
        outer = self

        class Requests(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.path, headers, json.loads(raw) if raw else None)
                outer.asked.append(asked)
                status, body = outer.handler(asked)
                if body is None:
                    outer._stopped.wait(60)
                    return
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
