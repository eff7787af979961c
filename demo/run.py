"""The whole loop on one machine: replicas with evaluators, node daemon, traffic, a live summary. It stops it all."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import yaml

from palegreen.demo import control, engine, gpu
from palegreen.demo.ending import Ending, ending
from palegreen.demo.faults import FAULTS
from palegreen.demo.live import Live, scrape
from palegreen.demo.peers import EVERY, Peers
from palegreen.demo.quality import Quality
from palegreen.demo.replica import Replica
from palegreen.demo.screen import Screen
from palegreen.demo.started import PALEGREEN, DemoError, Started, answers, free

REPLICAS = 3
"""So many that the one that differs from the others can be named."""
BASELINE = "baseline"
"""The baseline that is part of the package: of these questions, as the packaged model answers them."""
_QUALITY_PORT = 9451  # of the first evaluator's metrics, if it is free


def run(engine_url: str | None, port: int, seconds: float | None, requests_per_second: float) -> None:
    """Run until interrupted, or for `seconds`. Raises DemoError."""
    if missing := _missing():
        raise DemoError(f"the evaluator needs {', '.join(missing)}; run: pip install 'palegreen[evaluators]'")
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(ending())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="palegreen-demo-", ignore_cleanup_errors=True)))
        started = stack.enter_context(Started(folder, asked))
        try:
            engines = [None] if engine_url else _start_engines(started)
            urls = [server.url if server is not None else str(engine_url) for server in engines]
            live = _start_node(started, urls, port)
            compared = [] if engine_url else _compared(folder, urls[0])
            replicas = []
            for number, (server, url) in enumerate(zip(engines, urls, strict=True), 1):
                proxy, quality = _start_evaluator(started, number, url, compared)
                replicas.append(Replica(number, server, proxy, quality, requests_per_second / len(urls)))
            faults = Faults(replicas, folder)
            if stack.enter_context(control.listening(faults.answer)):
                _say(f"faults   palegreen demo fault {'|'.join(FAULTS)}")
            for replica in replicas:
                stack.enter_context(replica.traffic)
            _follow(live, replicas, faults, seconds, asked)
        except KeyboardInterrupt:
            pass
        _say("")
        _say("stopping what was started")


class Faults:
    """Brings about what `palegreen demo fault` asks for: `NAME` or `NAME NUMBER`, the number that of a replica."""

    def __init__(self, replicas: Sequence[Replica], folder: Path) -> None:
        self._replicas, self._folder = replicas, folder
        self._lock = threading.Lock()
        self.said: list[str] = []

    def answer(self, line: str) -> tuple[bool, str]:
        """Do it; whether it was done, and what was, or why not."""
        name, _, which = line.partition(" ")
        fault = FAULTS.get(name)
        if fault is None:
            return False, f"no fault {name!r}; allowed: {', '.join(FAULTS)}"
        if which and not (which.isdecimal() and 1 <= int(which) <= len(self._replicas)):
            return False, f"no replica {which!r}; allowed: 1 to {len(self._replicas)}"
        hit = (
            self._replicas if name == "none" and not which else [self._replicas[int(which or len(self._replicas)) - 1]]
        )
        with self._lock:
            for replica in hit:
                try:
                    refusal = replica.suffer(fault, self._folder)
                except engine.EngineError as failure:
                    return False, f"the engine of replica {replica.number} did not start: {failure}"
                if refusal:
                    return False, refusal
        told = f"replica {', '.join(str(replica.number) for replica in hit)}: {fault.about}"
        self.said.append(f"fault    {told}")
        return True, told


def _missing() -> list[str]:
    """Packages of the extra `evaluators` that are not installed."""
    required = [line for line in metadata.requires("palegreen") or () if 'extra == "evaluators"' in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required]
    return [name for name in names if not any(metadata.distributions(name=name))]


def _start_engines(started: Started) -> list[engine.LlamaServer | None]:
    reason = engine.available()
    if reason is not None:
        raise DemoError(f"no engine: {reason}\nor use one of your own: make run ENGINE=http://HOST:PORT")
    _say(f"engine   starting llama.cpp on CPU with a small model, {REPLICAS} replicas of it")
    servers: list[engine.LlamaServer | None] = []
    for number in range(1, REPLICAS + 1):
        server = engine.LlamaServer(log=started.log(f"engine-{number}"))
        started.engine(server)
        try:
            server.start(threads=1)
        except engine.EngineError as failure:
            raise DemoError(f"the engine did not start: {failure}") from None
        _say(f"engine   {server.url}")
        servers.append(server)
    return servers


def _start_node(started: Started, urls: Sequence[str], port: int) -> Live:
    driver = gpu.find(started.folder / "driver")
    _say(f"gpu      {driver.about}")
    address = f"127.0.0.1:{free(port)}"
    metrics = f"http://{address}/metrics"
    arguments = ["--listen-address", address, "--engine-interval", "1s", "--engine-timeout", "10s"]
    for url in urls:
        arguments += ["--engine", url]
    started.palegreen(
        "node",
        ["node", *arguments, *driver.arguments],
        lambda: "palegreen_source_up" in scrape(metrics),
        driver.environment,
    )
    _say(f"metrics  {metrics}")
    _say(f"status   http://{address}/")
    return Live(metrics)


def _compared(folder: Path, url: str) -> list[str]:
    """What evaluators of the packaged model are told: its baseline, and canaries recorded from a replica that is well,
    for all of them: they are the same program with the same weights."""
    given = ["--baseline", str(files("palegreen.demo") / BASELINE)]
    _say("canaries recording what the model answers to four fixed questions")
    reference, config = folder / "canaries.json", folder / "evaluate.yaml"
    prompts = str(files("palegreen.demo") / "canaries.yaml")
    command = ["canary", "record", "--url", url, "--prompts", prompts, "--out", str(reference)]
    command += ["--repeat", "2", "--sampled", "2"]
    done = subprocess.run([*PALEGREEN, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        _say(f"canaries none: {done.stderr.strip()}")
        return given
    config.write_text(yaml.safe_dump({"canary": {"reference": str(reference), "requests_per_minute": 4}}))
    return [*given, "--config", str(config)]


def _start_evaluator(started: Started, number: int, url: str, compared: Sequence[str]) -> tuple[str, Quality]:
    """The URL of the proxy that is now in front of the engine, and what reads its findings."""
    name = f"evaluate-{number}"
    proxy, address = f"127.0.0.1:{free(0)}", f"127.0.0.1:{free(_QUALITY_PORT + number - 1)}"
    store = started.folder / f"samples-{number}.db"
    arguments = ["--upstream", url, "--proxy-address", proxy, "--listen-address", address]
    arguments += ["--endpoint", "chat", "--store", str(store), "--log-format", "json", *compared]
    started.palegreen(name, ["evaluate", *arguments], lambda: answers(f"http://{address}/readyz"))
    _say(f"proxy    http://{proxy}")
    _say(f"quality  http://{address}/metrics")
    _say(f"status   http://{address}/")
    _say(f"samples  palegreen samples list --store {store}")
    return f"http://{proxy}", Quality(f"http://{address}/metrics", store, started.log(name))


def _follow(live: Live, replicas: Sequence[Replica], faults: Faults, seconds: float | None, asked: Ending) -> None:
    """Show what the metrics say, the answers with what the checks found, and alarms, until `seconds` are over."""
    _say("sending a little traffic through the proxies; Ctrl-C stops everything")
    screen = Screen()
    ends = None if seconds is None else time.monotonic() + seconds
    peers, looked = Peers(), time.monotonic()
    over = False
    while not over:
        time.sleep(1)
        asked.check()
        over = ends is not None and time.monotonic() >= ends
        if over or screen.due():
            totals = [replica.traffic.totals() for replica in replicas]
            answers, failed = sum(each.ok for each in totals), sum(each.failed for each in totals)
            stay, faults.said = faults.said, []
            if len(replicas) >= REPLICAS and time.monotonic() - looked >= EVERY:
                looked = time.monotonic()
                with contextlib.suppress(OSError):  # one of them does not answer: next time
                    stay += filter(None, [peers.look([scrape(replica.quality.url) for replica in replicas])])
            summary = [f"serving  {live.line()} | traffic: {answers} answers, {failed} failed"]
            for replica in replicas:
                named = f"{replica.number} " if len(replicas) > 1 else ""
                stay += [f"{named}{line}" for line in replica.quality.news()]
                summary.append(f"quality  {named and f'replica {named}'}{replica.quality.line()}")
            screen.show(stay, summary)


def _say(text: str) -> None:
    print(text, flush=True)
