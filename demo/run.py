"""The whole loop on one machine: engine, node daemon, evaluator, a little traffic, a live summary. It stops it all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from palegreen.demo import engine, gpu
from palegreen.demo.live import Live, scrape
from palegreen.demo.process import end
from palegreen.demo.quality import Quality
from palegreen.demo.questions import MAX_TOKENS, QUESTIONS
from palegreen.demo.screen import Screen
from palegreen.demo.traffic import Traffic

_READY_WITHIN = 60.0  # seconds for a daemon to show its first readings
_QUALITY_PORT = 9451  # of the evaluator's metrics, if it is free


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


def run(engine_url: str | None, port: int, seconds: float | None, requests_per_second: float) -> None:
    """Run until interrupted, or for `seconds`. Raises DemoError."""
    if missing := _missing():
        raise DemoError(f"the evaluator needs {', '.join(missing)}; run: pip install 'palegreen[evaluators]'")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="palegreen-demo-")))
        stack.enter_context(_terminated_as_interrupted())
        try:
            url = engine_url or _start_engine(stack, folder)
            live = _start_node(stack, folder, url, port)
            proxy, quality = _start_evaluator(stack, folder, url)
            traffic = stack.enter_context(
                Traffic(
                    proxy,
                    requests_per_second=requests_per_second,
                    concurrency=2,
                    max_tokens=MAX_TOKENS,
                    prompts=QUESTIONS,
                )
            )
            _follow(live, quality, traffic, seconds)
        except KeyboardInterrupt:
            pass
        _say("")
        _say("stopping what was started")


def _missing() -> list[str]:
    """Packages of the extra `evaluators` that are not installed."""
    required = [line for line in metadata.requires("palegreen") or () if 'extra == "evaluators"' in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required]
    return [name for name in names if not any(metadata.distributions(name=name))]


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


def _start_node(stack: contextlib.ExitStack, folder: Path, url: str, port: int) -> Live:
    driver = gpu.find(folder / "driver")
    _say(f"gpu      {driver.about}")
    address = f"127.0.0.1:{_free(port)}"
    metrics = f"http://{address}/metrics"
    arguments = ["--listen-address", address, "--engine", url, "--engine-interval", "1s", "--engine-timeout", "10s"]
    _start(
        stack,
        folder / "node.log",
        ["node", *arguments, *driver.arguments],
        lambda: "palegreen_source_up" in scrape(metrics),
        driver.environment,
    )
    _say(f"metrics  {metrics}")
    _say(f"status   http://{address}/")
    return Live(metrics)


def _start_evaluator(stack: contextlib.ExitStack, folder: Path, url: str) -> tuple[str, Quality]:
    """The URL of the proxy that is now in front of the engine, and what reads its findings."""
    proxy, address, store = f"127.0.0.1:{_free(0)}", f"127.0.0.1:{_free(_QUALITY_PORT)}", folder / "samples.db"
    arguments = ["--upstream", url, "--proxy-address", proxy, "--listen-address", address]
    arguments += ["--endpoint", "chat", "--store", str(store)]
    _start(stack, folder / "evaluate.log", ["evaluate", *arguments], lambda: _answers(f"http://{address}/readyz"))
    _say(f"proxy    http://{proxy}")
    _say(f"quality  http://{address}/metrics")
    _say(f"status   http://{address}/")
    _say(f"samples  palegreen samples list --store {store}")
    return f"http://{proxy}", Quality(f"http://{address}/metrics", store)


def _start(
    stack: contextlib.ExitStack,
    log: Path,
    command: list[str],
    ready: Callable[[], bool],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Start a daemon of Palegreen and wait until it is ready. `ready` may raise OSError, which means not yet."""
    daemon = subprocess.Popen(
        [sys.executable, "-m", "palegreen.cli.main", *command],
        env={**os.environ, **environment},
        stderr=stack.enter_context(log.open("w")),
        start_new_session=True,
    )
    stack.callback(end, daemon)
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            raise DemoError(f"palegreen {command[0]} ended: {log.read_text().strip()}")
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.1)
    raise DemoError(f"palegreen {command[0]} is not ready after {_READY_WITHIN:g} s: {log.read_text().strip()}")


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bool(response.status == 200)


def _follow(live: Live, quality: Quality, traffic: Traffic, seconds: float | None) -> None:
    """Show what the metrics say, and the answers with what the checks found, until `seconds` are over."""
    _say("sending a little traffic through the proxy; Ctrl-C stops everything")
    screen = Screen()
    ends = None if seconds is None else time.monotonic() + seconds
    over = False
    while not over:
        time.sleep(1)
        over = ends is not None and time.monotonic() >= ends
        if over or screen.due():
            totals = traffic.totals()
            serving = f"serving  {live.line()} | traffic: {totals.ok} answers, {totals.failed} failed"
            screen.show(quality.samples(), [serving, f"quality  {quality.line()}"])


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
