"""What both recorders stand on: the upstream that answers exchanges.json, and a sink that writes down what is POSTed.

Standard library only: it runs beside the senders, in an environment without Palegreen.
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXCHANGES: dict[str, dict[str, Any]] = json.loads((HERE / "exchanges.json").read_text(encoding="utf-8"))


class Local:
    """A server on loopback for `handler`."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def upstream(name: str) -> Local:
    """Answers every request with the exchange of that name."""
    exchange = EXCHANGES[name]

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(exchange["status"])
            if "stream" in exchange:
                lines = [json.dumps(chunk) for chunk in exchange["stream"]] + ["[DONE]"]
                body, kind = "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream"
            else:
                body, kind = json.dumps(exchange["response"]).encode(), "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Local(Answer)


def sink(posts: list[dict[str, Any]]) -> Local:
    """Takes every POST with 200 and appends it to `posts`: path, headers that matter, body in base64 (and as text)."""

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            named = {name: self.headers[name] for name in ("content-type", "content-encoding") if name in self.headers}
            posts.append({"path": self.path, "headers": named, "body": base64.b64encode(body).decode()})
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Local(Take)
