"""The whole loop on one machine: engine, node daemon, a little traffic, a live summary. It stops what it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from palegreen.demo import engine, gpu
from palegreen.demo.live import Live, scrape
from palegreen.demo.process import end
from palegreen.demo.traffic import Traffic

_READY_WITHIN = 20.0  # seconds for the daemon to show its first readings


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


def run(engine_url: str | None, port: int, seconds: float | None, requests_per_second: float) -> None:
    """Run until interrupted, or for `seconds`. Raises DemoError."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="palegreen-demo-")))
        stack.enter_context(_terminated_as_interrupted())
        try:
            url = engine_url or _start_engine(stack, folder)
            metrics = _start_node(stack, folder, url, port)
            traffic = stack.enter_context(
                Traffic(url, requests_per_second=requests_per_second, concurrency=2, max_tokens=48)
            )
            _follow(Live(metrics), traffic, seconds)
        except KeyboardInterrupt:
            pass
        _say("")
        _say("stopping what was started")


def _start_engine(stack: contextlib.ExitStack, folder: Path) -> str:
    reason = engine.available()
    if reason is not None:
        raise DemoError(f"no engine: {reason}\nor use one of your own: make run ENGINE=http://HOST:PORT")
    _say("engine   starting llama.cpp on CPU with a small model")
    server = engine.LlamaServer(log=folder / "engine.log")
    stack.callback(server.stop)
    try:
        server.start()
    except engine.EngineError as failure:
        raise DemoError(f"the engine did not start: {failure}") from None
    _say(f"engine   {server.url}")
    return server.url


def _start_node(stack: contextlib.ExitStack, folder: Path, url: str, port: int) -> str:
    driver = gpu.find(folder / "driver")
    _say(f"gpu      {driver.about}")
    address = f"127.0.0.1:{_free(port)}"
    command = [sys.executable, "-m", "palegreen.cli.main", "node", "--listen-address", address, "--engine", url]
    command += ["--engine-interval", "1s", "--engine-timeout", "10s", *driver.arguments]
    log = stack.enter_context((folder / "node.log").open("w"))
    node = subprocess.Popen(command, env={**os.environ, **driver.environment}, stderr=log, start_new_session=True)
    stack.callback(end, node)
    metrics = f"http://{address}/metrics"
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise DemoError(f"the node daemon ended: {(folder / 'node.log').read_text().strip()}")
        with contextlib.suppress(OSError):
            if "palegreen_source_up" in scrape(metrics):
                break
        time.sleep(0.1)
    else:
        raise DemoError(f"the node daemon did not answer at {metrics}")
    _say(f"metrics  {metrics}")
    _say(f"status   http://{address}/")
    return metrics


def _follow(live: Live, traffic: Traffic, seconds: float | None) -> None:
    """A line rewritten each second on a terminal, a line each five seconds into a file."""
    on_terminal = sys.stdout.isatty()
    began = shown = time.monotonic()
    _say("sending a little traffic; Ctrl-C stops everything")
    while seconds is None or time.monotonic() - began < seconds:
        time.sleep(1)
        line = live.line()
        totals = traffic.totals()
        line += f" | traffic: {totals.ok} answers, {totals.failed} failed"
        if on_terminal:
            print(f"\r\x1b[K{_fitted(line)}", end="", flush=True)
        elif time.monotonic() - shown >= 5 or seconds is not None:
            shown = time.monotonic()
            _say(line)


def _fitted(line: str) -> str:
    try:
        return line[: os.get_terminal_size().columns - 1]
    except OSError:
        return line


def _free(port: int) -> int:
    """The port if it is free, else any free one."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                return int(probe.getsockname()[1])
    raise DemoError("no free port on 127.0.0.1")


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that nothing is left behind."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, flush=True)
