"""What the demo observes: replicas with their evaluators, the node daemon, and what they are told."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from palegreen.demo import engine, gpu
from palegreen.demo.evaluator import ENDPOINT, Evaluator
from palegreen.demo.live import Live, scrape
from palegreen.demo.replica import ENGINE_OPTIONS, Replica
from palegreen.demo.screen import say
from palegreen.demo.started import PALEGREEN, DemoError, Started
from palegreen.runtime.identity import instance_id

REPLICAS = 3
"""So many that the one that differs from the others can be named."""
BASELINE = "baseline"
"""The baseline that is part of the package: of these questions, as the packaged model answers them."""
# More often than on a fleet, so that a fault is told within a minute.
_CANARY = {
    "requests_per_minute": 8,
    "progress_interval": "3s",
    "progress_timeout": "5s",
    "hung_after": "10s",
    "tokens_per_hour": 500_000,
}


class Stage(NamedTuple):
    """All of it: `targets` are what Prometheus scrapes, `numbers` say which replica an address or instance_id is."""

    live: Live
    replicas: list[Replica]
    targets: list[str]
    numbers: dict[str, int]


def build(started: Started, engine_url: str | None, port: int, requests_per_second: float) -> Stage:
    """Start it. Raises DemoError."""
    if missing := _missing():
        raise DemoError(f"the evaluator needs {', '.join(missing)}; run: pip install 'palegreen[evaluators]'")
    engines = [None] if engine_url else _start_engines(started)
    urls = [server.url if server is not None else str(engine_url) for server in engines]
    driver = gpu.find(started.folder / "driver")
    say(f"gpu      {driver.about}")
    live = _start_node(started, urls, port, driver)
    compared = ([], {}) if engine_url else _compared(started.folder, urls[0])
    replicas: list[Replica] = []
    targets, numbers = [urlsplit(live.url).netloc], dict[str, int]()
    for number, (server, url) in enumerate(zip(engines, urls, strict=True), 1):
        evaluator = Evaluator(started, number, url, *compared)
        say(f"proxy    {evaluator.proxy}")
        say(f"quality  {evaluator.quality.url}")
        say(f"status   http://{evaluator.address}/")
        say(f"samples  palegreen samples list --store {evaluator.store}")
        rate = requests_per_second / len(urls)
        replicas.append(Replica(number, server, evaluator.proxy, evaluator.quality, rate, evaluator, driver))
        targets.append(evaluator.address)
        numbers |= {instance_id(url, "", ""): number, targets[-1]: number}
    return Stage(live, replicas, targets, numbers)


def _missing() -> list[str]:
    """Packages of the extra `evaluators` that are not installed."""
    required = [line for line in metadata.requires("palegreen") or () if 'extra == "evaluators"' in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required]
    return [name for name in names if not any(metadata.distributions(name=name))]


def _start_engines(started: Started) -> list[engine.LlamaServer | None]:
    reason = engine.available()
    if reason is not None:
        raise DemoError(f"no engine: {reason}\nor use one of your own: make run ENGINE=http://HOST:PORT")
    say(f"engine   starting llama.cpp on CPU with a small model, {REPLICAS} replicas of it")
    servers: list[engine.LlamaServer | None] = []
    for number in range(1, REPLICAS + 1):
        server = engine.LlamaServer(log=started.log(f"engine-{number}"))
        started.engine(server)
        try:
            server.start(threads=1, extra=ENGINE_OPTIONS)
        except engine.EngineError as failure:
            raise DemoError(f"the engine did not start: {failure}") from None
        say(f"engine   {server.url}")
        servers.append(server)
    return servers


def _start_node(started: Started, urls: Sequence[str], port: int, driver: gpu.Driver) -> Live:
    address = f"127.0.0.1:{started.port(port)}"
    metrics = f"http://{address}/metrics"
    config = started.folder / "node.yaml"
    engines = [{"url": url, "endpoint": ENDPOINT} for url in urls]
    config.write_text(yaml.safe_dump({"engines": engines, "engine_interval": "1s", "engine_timeout": "10s"}))
    started.palegreen(
        "node",
        ["node", "--config", str(config), "--listen-address", address, *driver.arguments],
        lambda: "palegreen_source_up" in scrape(metrics),
        driver.environment,
    )
    say(f"metrics  {metrics}")
    say(f"status   http://{address}/")
    return Live(metrics)


def _compared(folder: Path, url: str) -> tuple[list[str], dict[str, Any]]:
    """Options and settings for evaluators of the packaged model: its baseline, and canaries recorded from a replica
    that is well, for all of them: they are the same program with the same weights."""
    given = ["--baseline", str(files("palegreen.demo") / BASELINE)]
    say("canaries recording what the model answers to four fixed questions")
    reference = folder / "canaries.json"
    prompts = str(files("palegreen.demo") / "canaries.yaml")
    command = ["canary", "record", "--url", url, "--prompts", prompts, "--out", str(reference)]
    command += ["--repeat", "2", "--sampled", "2"]
    done = subprocess.run([*PALEGREEN, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"canaries none: {done.stderr.strip()}")
        return given, {}
    return given, {"canary": {"reference": str(reference), **_CANARY}}
