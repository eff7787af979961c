"""Upstreams for proxy.py, each printing a line when it listens.

upstream.py guidellm PORT    guidellm's mock server without any delay; run by the Python that has guidellm
upstream.py fixed PORT       always the same bytes, as fast as asyncio goes
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import urllib.request

TOKENS = 16
_CONTENT = " lorem ipsum dolor sit amet"


def guidellm(port: int) -> None:
    """guidellm's mock server, announced when it answers."""
    from guidellm.mock_server.server import MockServer
    from guidellm.schemas.mock_server import MockServerConfig

    def announce() -> None:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                print("listening", flush=True)
                return

    threading.Thread(target=announce, daemon=True).start()
    none = dict.fromkeys(
        ("ttft_ms", "ttft_ms_std", "itl_ms", "itl_ms_std", "request_latency", "request_latency_std"), 0
    )
    config = MockServerConfig(
        host="127.0.0.1", port=port, model="mock", output_tokens=TOKENS, output_tokens_std=0, **none
    )
    MockServer(config).run(access_log=False)


class Fixed(asyncio.Protocol):
    """Answers each request by the same bytes, streams an event at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Part of a request; those that come are small and one at a time."""
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        lower = head.lower()
        if not mark:
            return
        if b"content-length: " in lower:
            if len(body) < int(lower.partition(b"content-length: ")[2].split(b"\r\n")[0]):
                return
        elif b"transfer-encoding: chunked" in lower and not body.endswith(b"0\r\n\r\n"):
            return
        self._received = b""
        if b'"stream": true' in body or b'"stream":true' in body:
            self._stream([*STREAM])
        else:
            self._transport.write(PLAIN)

    def _stream(self, parts: list[bytes]) -> None:
        self._transport.write(parts.pop(0))
        if parts and not self._transport.is_closing():
            asyncio.get_running_loop().call_soon(self._stream, parts)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    text = json.dumps(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    return b"data: %s\n\n" % text.encode()


def _plain() -> bytes:
    message = {"role": "assistant", "content": _CONTENT * TOKENS}
    body = json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "data": [{"id": "mock", "object": "model"}],  # of /v1/models, for those who ask
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _stream() -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    events = [_event({"role": "assistant", "content": _CONTENT})] + [_event({"content": _CONTENT})] * (TOKENS - 1)
    chunks = [b"%x\r\n%s\r\n" % (len(each), each) for each in (*events, _event({}, "stop"), b"data: [DONE]\n\n")]
    return [head, *chunks, b"0\r\n\r\n"]


PLAIN, STREAM = _plain(), _stream()


async def fixed(port: int) -> None:
    """Serve the same bytes for ever."""
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "guidellm":
        guidellm(int(sys.argv[2]))
    else:
        asyncio.run(fixed(int(sys.argv[2])))
