"""What the ASGI tap costs the serving process it runs in: prints Markdown.

    python benchmarks/asgi.py

Three ways with each number of chunks, in turn, each beside the same application without the tap: calls of the
application in process, with a live evaluator's end of the socket in another process; the same with a socket that
nobody reads; and requests through a real uvicorn over loopback on one connection. The cost of a request and of a chunk
is the line of least squares through the differences, of the CPU time of the serving thread and of the
time that passed. The latter holds what else runs on the machine, the evaluator's end among it.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.taps.handoff import Handoff
from palegreen.inprocess.asgi import Tap
from palegreen.runtime.tally import Tally

CHUNKS = (0, 1, 10, 50, 100, 200, 500)
QUESTION = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "' + b"x" * 300 + b'"}]}'
CHUNK = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":" word"}}]}\n\n'
HEADERS = [
    (b"host", b"127.0.0.1:8000"), (b"user-agent", b"openai/1.0"), (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"), (b"content-type", b"application/json"), (b"authorization", b"Bearer x"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"content-length", b"400"),
    (b"x-stainless-lang", b"python"), (b"x-stainless-os", b"Linux"), (b"x-session-id", b"s1"),
]  # fmt: skip
_BLOCKS = 20  # of calls, without and with in turn; what is compared are medians over blocks
_BLOCK = 0.05  # seconds, many times as long as records are gathered before they are handed over
Call = Callable[[int], Awaitable[None]]


def main() -> None:
    """Run everything, about two minutes."""
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {_machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        live, stalled = f"{folder}/live.sock", f"{folder}/stalled.sock"
        end = multiprocessing.Process(target=_receive, args=(live,), daemon=True)
        end.start()
        while not Path(live).exists():
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(stalled)
            listener.listen(8)
            _report("in process, a live evaluator", _calls(_app), _calls(Tap(_app, socket=live)))
            _report("in process, nobody reads", _calls(_app), _calls(Tap(_app, socket=stalled)))
            _report("in process, not sampled", _calls(_app), _calls(Tap(_app, socket=live, sample_rate=0.0)))
        asyncio.run(_behind_uvicorn(live))
        end.terminate()
        end.join()


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = f"Linux {platform.release()}, CPython {platform.python_version()}, uvicorn {uvicorn.__version__}"
    return f"{os.cpu_count()} CPUs ({model}), {versions}"


def _receive(path: str) -> None:
    async def serve() -> None:
        handoff = Handoff(EvaluateConfig.model_validate({"tap_socket": path}), lambda _: None, Tally())
        await handoff.start()
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await receive()
    count = int(scope["query_string"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(count):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _calls(app: Any) -> Call:
    """Calls as a server makes them, with a `receive` and a `send` that do nothing."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": QUESTION, "more_body": False}

    async def send(_message: Any) -> None:
        pass

    async def call(count: int) -> None:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
            "query_string": b"%d" % count, "headers": HEADERS,
        }  # fmt: skip
        await app(scope, receive, send)

    return call


def _report(title: str, bare: Call, tapped: Call) -> None:
    print(_table(title, asyncio.run(_compare(bare, tapped))), flush=True)


async def _compare(bare: Call, tapped: Call) -> list[tuple[float, ...]]:
    """CPU time and time passed of a call, without and with, in microseconds; medians over blocks."""
    rows = []
    for count in CHUNKS:
        taken: tuple[list[float], ...] = ([], [], [], [])
        for block in range(_BLOCKS + 2):
            for at, call in ((0, bare), (1, tapped))[:: 1 if block % 2 else -1]:
                calls, began, cpu = 0, time.perf_counter(), time.thread_time()
                while (passed := time.perf_counter() - began) < _BLOCK:
                    await call(count)
                    await asyncio.sleep(0)  # the loop looks at its timers, at which records are handed over
                    calls += 1
                if block >= 2:
                    taken[at].append(1e6 / calls * (time.thread_time() - cpu))
                    taken[2 + at].append(1e6 / calls * passed)
        gc.collect()
        rows.append(tuple(map(statistics.median, taken)))
    return rows


def _table(title: str, rows: list[tuple[float, ...]]) -> str:
    lines = [
        f"{title}\n",
        "| chunks | CPU without, us | CPU with, us | CPU added, us | time added, us |\n|---:|---:|---:|---:|---:|",
    ]
    for count, (without, with_it, before, after) in zip(CHUNKS, rows, strict=True):
        cells = (without, with_it, with_it - without, after - before)
        lines.append(f"| {count} | " + " | ".join(f"{cell:,.1f}" for cell in cells) + " |")
    for what, at in (("CPU", 0), ("time", 2)):
        chunk, request = np.polyfit(CHUNKS, [row[at + 1] - row[at] for row in rows], 1)
        lines.append(f"\n{what}: **{request:.1f} us a request + {chunk:.2f} us a chunk** (bar: 50 + 5)")
    return "\n".join(lines) + "\n"


async def _behind_uvicorn(path: str) -> None:
    """Two servers in one process, without and with; one client connection to each, one request after another."""
    servers, calls = [], []
    for app in (_app, Tap(_app, socket=path)):
        server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", lifespan="off", log_level="critical"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        servers.append((server, serving))
        port = server.servers[0].sockets[0].getsockname()[1]
        calls.append(_client(*await asyncio.open_connection("127.0.0.1", port)))
    print(_table(f"behind uvicorn ({sys.platform}, loopback)", await _compare(calls[0], calls[1])))
    for server, serving in servers:
        server.should_exit = True
        await serving


def _client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call:
    fields = b"".join(b"%s: %s\r\n" % pair for pair in HEADERS if pair[0] != b"content-length")

    async def call(count: int) -> None:
        head = b"POST /v1/chat/completions?%d HTTP/1.1\r\n%scontent-length: %d\r\n\r\n"
        writer.write(head % (count, fields, len(QUESTION)) + QUESTION)
        await reader.readuntil(b"\r\n0\r\n\r\n")

    return call


if __name__ == "__main__":
    main()
