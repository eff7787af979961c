"""A replica that answers as a test says: an OpenAI-shaped engine with a metrics page, well or in some trouble."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self

Spoken = list[tuple[str, dict[str, float]]]
"""Tokens, each with the probabilities of the likeliest in its place, its own among them."""


def speak(body: dict[str, Any]) -> Spoken:
    """What a replica that is well says: it repeats the question, word by word."""
    words = body["messages"][-1]["content"].split()[: body["max_tokens"]]
    return [(f"{word} ", {f"{word} ": 0.9, "the ": 0.05, "a ": 0.02}) for word in words]


class Replica:
    """Serves until the end of the test. `mode` may be changed while it runs.

    Modes: well; hung (accepts and never answers); saturated (likewise, but makes tokens for others); busy (429);
    loading (503); failing (500); refusing (401); cut (ends in the middle); garbage (no JSON). What
    `say` gives None for is refused.
    """

    def __init__(self, say: Callable[[dict[str, Any]], Spoken | None] = speak, **given: Any) -> None:
        self.say = say
        self.mode = "well"
        self.logprobs: bool = given.get("logprobs", True)
        self.metrics: bool = given.get("metrics", True)
        self.model: str = given.get("model", "small")
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.made = 0
        self.stuck = 0  # requests that are never answered
        self._seen, self._now = 0, 0.0
        self.ended = Event()
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                replica.requests.append((self.path, _lower(self.headers), {}))
                if self.path == "/health":
                    self.reply(200, b"ok", "text/plain")
                elif self.path == "/v1/models":
                    self.reply(200, json.dumps({"data": [{"id": replica.model}]}).encode())
                elif self.path == "/metrics" and replica.metrics:
                    if replica.mode == "saturated":
                        replica.made += 10
                    page = f'# TYPE x counter\nvllm:generation_tokens_total{{model_name="m"}} {replica.made}\n'
                    self.reply(200, page.encode(), "text/plain")
                else:
                    self.reply(404, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                replica.requests.append((self.path, _lower(self.headers), body))
                match replica.mode:
                    case "hung" | "saturated":
                        replica.stuck += 1
                        replica.ended.wait(30)
                    case "busy":
                        self.reply(429, b'{"error": {"message": "too many requests"}}')
                    case "loading":
                        self.reply(503, b'{"error": {"code": 503, "message": "Loading model"}}')
                    case "failing":
                        self.reply(500, b'{"error": {"message": "the engine is dead"}}')
                    case "refusing":
                        self.reply(401, b'{"error": {"message": "who are you"}}')
                    case "garbage":
                        self.reply(200, b"<html>what?</html>", "text/html")
                    case _ if "logprobs" in body and not replica.logprobs:
                        self.reply(400, b'{"error": {"message": "logprobs are not supported"}}')
                    case mode:
                        self.answer(body, mode)

            def answer(self, body: dict[str, Any], mode: str) -> None:
                spoken = replica.say(body)
                if spoken is None:
                    self.reply(400, b'{"error": {"message": "this is not supported"}}')
                    return
                replica.made += len(spoken)
                pieces = [_event(body, replica.model, token, top) for token, top in spoken]
                usage = {"prompt_tokens": 7, "completion_tokens": len(spoken)}
                last = {"model": replica.model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
                events = [*pieces, last, {"model": replica.model, "choices": [], "usage": usage}]
                stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
                stream += b"data: [DONE]\n\n"
                if mode == "cut":
                    self.send_response(200)
                    self.send_header("content-type", "text/event-stream")
                    self.send_header("content-length", str(len(stream)))
                    self.end_headers()
                    self.wfile.write(stream[: len(stream) // 3])
                    self.close_connection = True
                else:
                    self.reply(200, stream, "text/event-stream")

            def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]  # a client that gave up
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def clock(self) -> float:
        """Seconds as a client of ours counts them: none pass but where a request hangs, and there it is at its end."""
        if self.stuck > self._seen:
            self._seen = self.stuck
            self._now += 1000
        return self._now

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Bodies of the questions."""
        return [body for _, _, body in self.requests if body]


def _event(body: dict[str, Any], model: str, token: str, top: dict[str, float]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": token}}
    if body.get("logprobs"):
        listed = [{"token": one, "logprob": math.log(value)} for one, value in top.items()]
        own = math.log(top[token])
        choice["logprobs"] = {"content": [{"token": token, "logprob": own, "top_logprobs": listed}]}
    return {"model": model, "choices": [choice]}


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
