"""What decoding a typical exchange costs: prompt and response of 300 characters, unstreamed and in 60 chunks.

python benchmarks/wire.py
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.wire import jsonl
from palegreen.evaluators.wire.decode import Decoder
from palegreen.evaluators.wire.defaults import Defaults

TEXT = ("The quick brown fox jumps over the lazy dog, and the dog does not mind at all. " * 4)[:300]
PIECES = 60
CHAT = {"id": "chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9", "created": 1760000000, "model": "Qwen/Qwen3-8B"}
USAGE = {"prompt_tokens": 75, "completion_tokens": PIECES, "total_tokens": 135}


def exchange(response: bytes, content_type: str) -> Envelope:
    """A chat exchange as the proxy hands it over."""
    request = {
        "model": "Qwen/Qwen3-8B",
        "messages": [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": TEXT}],
        "temperature": 0.7,
        "stream_options": {"include_usage": True},
    }
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "user-agent": "OpenAI/Python"}
    meta: dict[str, Any] = {
        "tap": "proxy",
        "kind": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "time": 1760000000.0,
        "sampled": "rate",
        "request_headers": headers,
        "response_headers": {"content-type": content_type},
        "arrivals": [[200, 0.1], [400, 0.12], [len(response), 1.0]],
        "duration": 1.0,
        "ended": "complete",
    }
    return Envelope(meta, [json.dumps(request).encode(), response])


def unstreamed() -> Envelope:
    """One JSON body."""
    message = {"role": "assistant", "content": TEXT, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {**CHAT, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    return exchange(json.dumps(body).encode(), "application/json")


def streamed(logprobs: bool = False) -> Envelope:
    """60 chunks, five characters each."""
    size = len(TEXT) // PIECES
    deltas: list[dict[str, Any]] = [{"content": TEXT[at : at + size]} for at in range(0, len(TEXT), size)]
    tokens = [{"token": "dog", "logprob": -0.25, "bytes": [100, 111, 103], "top_logprobs": []}]
    chunks: list[dict[str, Any]] = [
        {
            **CHAT,
            "object": "chat.completion.chunk",
            "choices": [
                {
                    "index": 0,
                    "delta": delta,
                    "logprobs": {"content": tokens} if logprobs else None,
                    "finish_reason": None,
                }
            ],
        }
        for delta in [{"role": "assistant", "content": ""}, *deltas]
    ]
    chunks.append({**CHAT, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({**CHAT, "choices": [], "usage": USAGE})
    body = b"".join(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n" for chunk in chunks)
    return exchange(body + b"data: [DONE]\n\n", "text/event-stream; charset=utf-8")


def main() -> None:
    """Print the table."""
    (sample,) = Decoder(Defaults()).decode(streamed())
    recorded = Envelope({"tap": "file", "kind": "jsonl", "file": "f", "line": 1}, [jsonl.write(sample)])  # type: ignore[arg-type]
    print("| exchange | bytes | p50 us | p90 us |\n|---|---|---|---|")
    for name, envelope in (
        ("chat, unstreamed", unstreamed()),
        ("chat, 60 chunks", streamed()),
        ("chat, 60 chunks with logprobs", streamed(logprobs=True)),
        ("recorded line", recorded),
    ):
        decoder, taken = Decoder(Defaults()), []
        for _ in range(3000):
            begun = time.perf_counter()
            decoder.decode(envelope)
            taken.append((time.perf_counter() - begun) * 1e6)
        p90 = statistics.quantiles(taken, n=10)[-1]
        print(f"| {name} | {sum(map(len, envelope.parts))} | {statistics.median(taken):.0f} | {p90:.0f} |")


if __name__ == "__main__":
    main()
