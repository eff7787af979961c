"""Records exchanges with a real llama.cpp server into this folder: python tests/captures/wire/record.py."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any

from palegreen.demo.engine import LlamaServer

HERE = Path(__file__).parent
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Où est Paris? Answer with é 🙂."}]
CHAT = {"model": "smollm2", "messages": QUESTION, "max_tokens": 24, "seed": 7, "temperature": 0.8}
TEXT = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 12, "seed": 7, "temperature": 0.8}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
WEATHER = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "max_tokens": 64,
    "tools": [TOOL],
    "tool_choice": "required",
}
SHAPE = {"type": "json_schema", "json_schema": {"name": "city", "schema": TOOL["function"]["parameters"]}}

EXCHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat-stream": ("/v1/chat/completions", {**CHAT, **USAGE}),
    "chat-stream-without-usage": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "chat-logprobs": ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 1, "max_tokens": 6}),
    "chat-logprobs-stream": (
        "/v1/chat/completions",
        {**CHAT, "logprobs": True, "top_logprobs": 1, "max_tokens": 6, **USAGE},
    ),
    "chat-two-choices": ("/v1/chat/completions", {**CHAT, "n": 2, "max_tokens": 8}),
    "chat-two-choices-stream": ("/v1/chat/completions", {**CHAT, "n": 2, "max_tokens": 8, **USAGE}),
    "chat-tool": ("/v1/chat/completions", {**CHAT, **WEATHER}),
    "chat-tool-stream": ("/v1/chat/completions", {**CHAT, **WEATHER, **USAGE}),
    "chat-json-schema": ("/v1/chat/completions", {**CHAT, "response_format": SHAPE}),
    "chat-bad-request": ("/v1/chat/completions", {**CHAT, "messages": "none"}),
    "completions": ("/v1/completions", TEXT),
    "completions-stream": ("/v1/completions", {**TEXT, **USAGE}),
    "completions-logprobs": ("/v1/completions", {**TEXT, "logprobs": 1, "max_tokens": 6}),
    "responses": ("/v1/responses", {"model": "smollm2", "input": "Say hello.", "max_output_tokens": 12}),
    "responses-stream": (
        "/v1/responses",
        {"model": "smollm2", "input": "Say hello.", "max_output_tokens": 12, "stream": True},
    ),
}


def record(port: int, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """One exchange, its bytes and when they came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    begun = time.monotonic()
    connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body, arrivals = b"", []
    while piece := response.read1():
        body += piece
        arrivals.append([len(body), round(time.monotonic() - begun, 4)])
    kept = ("content-type", "content-encoding", "x-request-id")
    return {
        "path": path,
        "request": request,
        "status": response.status,
        "response_headers": {k.lower(): v for k, v in response.getheaders() if k.lower() in kept},
        "arrivals": [*arrivals[:4], arrivals[-1]] if len(arrivals) > 5 else arrivals,
        "duration": arrivals[-1][1],
        "response": body.decode(),
    }


def main() -> None:
    """Record everything."""
    with LlamaServer().start(slots=2, threads=2, extra=("--jinja",)) as server:
        port = int(server.url.rpartition(":")[2])
        for name, (path, request) in EXCHANGES.items():
            recorded = record(port, path, request)
            (HERE / f"llamacpp-{name}.json").write_text(
                json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )


if __name__ == "__main__":
    main()
