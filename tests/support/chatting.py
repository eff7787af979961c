"""An OpenAI-shaped upstream whose answers follow from what is asked, and an evaluator in front of it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

from support.daemon import Daemon
from support.waiting import until

EVALUATE = ("evaluate",)
PATH = "/v1/chat/completions"


def answer(question: str) -> bytes:
    """The body with which a question is answered."""
    text = f"You asked: {question}. This is what I know about it, and that is all."
    return json.dumps({
        "id": f"chatcmpl-{question}",
        "object": "chat.completion",
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 15},
    }).encode()  # fmt: skip


class Chat:
    """Answers questions; `asks to wait` are held until `go` is set, streamed in two parts."""

    def __init__(self) -> None:
        self.go = Event()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question = asked["messages"][-1]["content"]
                body = answer(question)
                self.send_response(500 if question == "fail" else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:20])
                if question == "wait":
                    chat.go.wait(30)
                self.wfile.write(body[20:])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a peer that is killed
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


class Evaluator(Daemon):
    """`palegreen evaluate` with a proxy in front of `upstream`, both on ports of their own choice."""

    def __init__(self, upstream: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        taps = ("--upstream", upstream, "--proxy-address", "127.0.0.1:0") if upstream else ()
        super().__init__(*taps, "--embedder", "none", *arguments, env=env, command=EVALUATE)
        self.proxy = int(re.findall(r"proxy=127\.0\.0\.1:(\d+)", self.events("tap.ready")[0])[0]) if upstream else 0

    def child(self, name: str) -> int:
        """Process id of a child that is ready."""
        return int(re.findall(r"pid=(\d+)", until(lambda: self.events(f"{name}.ready"), 60)[-1])[0])

    def ask(self, question: str, timeout: float = 20, **headers: str) -> tuple[int, bytes]:
        """Status and body of one question through the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy, timeout=timeout)
        try:
            body = {"model": "small", "messages": [{"role": "user", "content": question}]}
            connection.request("POST", PATH, json.dumps(body), {"content-type": "application/json"} | headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric's series that have these labels."""
        named = [sample for sample in self.samples() if sample.name == f"palegreen_{name}"]
        return sum(sample.value for sample in named if labels.items() <= sample.labels.items())

    def accounted(self) -> tuple[float, float, float]:
        """Exchanges that the proxy saw, samples that were scored, records that were lost."""
        return (
            self.total("tap_received_total", tap="proxy"),
            self.total("quality_samples_total", tap="proxy"),
            self.total("tap_dropped_total", tap="proxy"),
        )


def write(path: Path, **settings: Any) -> Path:
    """A configuration file."""
    path.write_text(json.dumps(settings))
    return path
