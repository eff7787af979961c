"""A model server that can be deployed anew: what it says of its weights and of itself is set from outside."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

from support.daemon import Daemon


class Engine:
    """Answers every question at length; `pages` are answered to a GET: JSON, or a status."""

    def __init__(self, **pages: Any) -> None:
        self.fingerprint = "fp_one"
        self.pages: dict[str, Any] = pages
        self.asked: list[str] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                engine.asked.append(self.path)
                page = engine.pages.get(self.path, 404)
                self._answer(page if isinstance(page, int) else 200, page)

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                text = f"This is what there is to say about {asked['messages'][-1]['content']}."
                choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                said = {"id": "c", "object": "chat.completion", "model": "small", "choices": [choice]}
                self._answer(200, said | {"system_fingerprint": engine.fingerprint})

            def _answer(self, status: int, said: Any) -> None:
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def post(
    daemon: Daemon, body: bytes | str = b"", path: str = "/-/deploy", headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Status and text of one POST to the metrics address."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    try:
        connection.request("POST", path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
