"""Measure the node daemon beside nvitop-exporter and openlit's GPU collector, on the same simulated driver.

    python benchmarks/node.py --setup     once: the other tools, in an environment of their own
    python benchmarks/node.py             about 20 minutes; prints Markdown
    python benchmarks/node.py --quick     about two minutes: does it work?
    python benchmarks/node.py --soak 3600 resident memory of the daemon over an hour, scraped every second

Each target is started, measured and ended by itself, in turn, and scraped by this process over 127.0.0.1.
Everything that is started is ended by its process id.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import gzip
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import (
    GPUS,
    PEERS,
    PROMETHEUS,
    ROOT,
    Client,
    Target,
    cpu,
    machine,
    memory,
    node_daemon,
    nvitop_exporter,
    printed_line,
    say,
    serving,
    set_up,
    started,
    steady_driver,
    versions,
)

from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE

CAPTURES = ROOT / "tests" / "captures" / "engines"
SERVERS = Path(__file__).with_name("servers.py")

ENGINES = ("vllm:/metrics", "sglang:/metrics", "trtllm-serve:/prometheus/metrics", "tgi:/metrics")
PLAIN = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}
FORMATS = {"as Prometheus asks": PROMETHEUS, "plain text": PLAIN}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything takes: seconds, and scrapes."""

    settle: float
    idle: float
    every_second: float
    back_to_back: int
    paced: int

    def seconds(self) -> float:
        """Roughly, for one target."""
        return self.settle + self.idle + self.every_second + len(FORMATS) * self.paced * PACE


PACE = 0.05  # mean seconds between two scrapes of the paced run
FULL = Plan(settle=8, idle=30, every_second=30, back_to_back=1000, paced=1200)
QUICK = Plan(settle=6, idle=3, every_second=3, back_to_back=100, paced=60)


@dataclass(slots=True)
class Result:
    """What was measured: latencies in ms by (format, pacing), memory in MiB, CPU in percent of one core."""

    latencies: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    wire: dict[str, int] = field(default_factory=dict)
    reconnects: bool = False
    text: int = 0
    series: int = 0
    rss: float = 0
    peak: float = 0
    idle: float = 0
    every_second: float = 0


def main() -> int:
    """Run what was asked for."""
    options = _options()
    if options.setup:
        set_up()
    with tempfile.TemporaryDirectory(prefix="palegreen-bench-") as name:
        folder = Path(name)
        pages = [f"{CAPTURES / file}.prom:{path}" for file, _, path in (engine.partition(":") for engine in ENGINES)]
        uuids = [gpu.uuid for gpu in steady_driver(folder, pids=())[1].gpus]
        pages.append(f"{_dcgm(folder, uuids)}:/metrics")
        with started([sys.executable, str(SERVERS), "engines", *pages], {}, folder / "engines.log") as engines:
            *ports, dcgm = [int(port) for port in printed_line(engines).split()]
            library, _ = steady_driver(folder, pids=(engines.pid, os.getpid()))
            targets = _targets(folder, library, ports, dcgm)
            if options.soak:
                _soak(targets["Palegreen, engines every 1 s"], uuids, folder, options.soak)
                return 0
            plan = QUICK if options.quick else FULL
            chosen = [t for t in targets.values() if not options.only or any(o in t.name for o in options.only)]
            say(f"{len(chosen)} targets, about {len(chosen) * plan.seconds() / 60:.0f} minutes")
            results: dict[str, Result] = {}
            for target in chosen:
                say(f"{target.name} ...")
                results[target.name] = _measure(target, uuids, folder, plan)
            _report(results, plan)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="install the other tools first (needs a package index)")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its numbers mean little")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="only watch the daemon's memory for that long")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only targets with this in their name")
    return parser.parse_args()


def _dcgm(folder: Path, uuids: Sequence[str]) -> Path:
    """A dcgm-exporter's page of the same GPUs: the rows of one GPU of a capture, for each."""
    text = (CAPTURES.parent / "dcgm" / "a100-profiling.prom").read_text()
    uuid = re.findall(r'UUID="([^"]+)"', text)[0]
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(line)
        elif uuid in line:
            lines += [line.replace(uuid, each).replace('gpu="0"', f'gpu="{n}"') for n, each in enumerate(uuids)]
    page = folder / "dcgm.prom"
    page.write_text("\n".join(lines) + "\n")
    return page


def _targets(folder: Path, library: Path, ports: Sequence[int], dcgm: int) -> dict[str, Target]:
    simulated = {ENVIRONMENT_VARIABLE: str(folder / "scenario")}
    peers = {**simulated, "LD_LIBRARY_PATH": str(library.parent)}
    urls = [argument for port in ports for argument in ("--engine", f"http://127.0.0.1:{port}")]
    pricing = folder / "pricing.json"
    pricing.write_text("{}")
    fixed = folder / "fixed"
    fixed.write_bytes(os.urandom(20_000))

    everything = ["--dcgm", f"http://127.0.0.1:{dcgm}", "--allocator-dir", str(folder)]
    for size in ("small=10GiB", "large=40GiBx2", "largest=70GiBx8"):
        everything += ["--model-size", size]
    python = str(PEERS / "bin" / "python")
    daemons = {every: node_daemon(library, *urls, "--engine-interval", every) for every in ("15s", "1s")}
    listed = [
        Target("Palegreen, engines every 15 s", daemons["15s"], simulated, engines=len(ports)),
        Target("Palegreen, engines every 1 s", daemons["1s"], simulated, engines=len(ports)),
        Target(
            "Palegreen, everything on, engines every 15 s",
            node_daemon(library, *urls, "--engine-interval", "15s", *everything),
            simulated,
            engines=len(ports),
        ),
        Target("Palegreen, GPUs only", node_daemon(library), simulated),
        Target("nvitop-exporter", nvitop_exporter, peers),
        Target(
            "openlit GPU collector", lambda _: [python, str(SERVERS), "openlit", str(pricing)], peers, prints_port=True
        ),
        Target(
            "floor: 20 kB of fixed bytes",
            lambda _: [sys.executable, str(SERVERS), "floor", str(fixed)],
            prints_port=True,
            gpus=False,
        ),
    ]
    if not Path(python).exists():
        say("the other tools are not installed: run with --setup; measuring Palegreen alone")
        listed = [target for target in listed if not target.environment.get("LD_LIBRARY_PATH")]
    return {target.name: target for target in listed}


def _measure(target: Target, uuids: Sequence[str], folder: Path, plan: Plan) -> Result:
    result = Result()
    with serving(target, uuids, folder) as (pid, client):
        time.sleep(plan.settle)
        for name, headers in FORMATS.items():
            _, body, encoding = client.scrape(headers)
            result.wire[name] = len(body)
            if target.gpus:
                text = gzip.decompress(body) if encoding == "gzip" else body
                result.text = len(text)
                result.series = sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
        client.closed = 0
        client.scrape(PROMETHEUS)
        result.reconnects = client.closed > 0
        result.idle = cpu(pid, lambda: time.sleep(plan.idle))
        result.every_second = cpu(pid, lambda: _scrape_every_second(client, plan.every_second))
        for name, headers in FORMATS.items():
            result.latencies[name, "paced"] = _paced(client, headers, plan.paced)
        for name, headers in FORMATS.items():
            result.latencies[name, "back to back"] = _sampled(client, headers, plan.back_to_back)
        result.rss, result.peak = memory(pid)
    return result


def _scrape_every_second(client: Client, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.scrape(PROMETHEUS)
        time.sleep(1)


def _paced(client: Client, headers: Mapping[str, str], scrapes: int) -> list[float]:
    """At random moments, so that scrapes fall on every phase of what the target does in the background."""
    moments = random.Random(1)
    took: list[float] = []
    with _collector_off():
        for _ in range(scrapes):
            time.sleep(moments.uniform(0.2 * PACE, 1.8 * PACE))
            took.append(client.scrape(headers)[0])
    return took


def _sampled(client: Client, headers: Mapping[str, str], scrapes: int) -> list[float]:
    with _collector_off():
        return [client.scrape(headers)[0] for _ in range(scrapes)]


@contextmanager
def _collector_off() -> Iterator[None]:
    """Without this process' own garbage collector in the latencies."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _soak(target: Target, uuids: Sequence[str], folder: Path, seconds: float) -> None:
    samples: list[tuple[float, float]] = []
    with serving(target, uuids, folder) as (pid, client):
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            client.scrape(PROMETHEUS)
            samples.append((elapsed, memory(pid)[0]))
            time.sleep(1)
        peak = memory(pid)[1]
    settled = [sample for sample in samples if sample[0] >= seconds / 5]
    slope = statistics.linear_regression(*zip(*settled, strict=True)).slope * 3600
    print(f"Soak: {target.name}, scraped every second for {seconds:g} s\n")
    print("| Seconds | RSS MiB |\n|---:|---:|")
    for share in range(11):
        elapsed, rss = samples[min(share * len(samples) // 10, len(samples) - 1)]
        print(f"| {elapsed:.0f} | {rss:.1f} |")
    print(f"\nPeak {peak:.1f} MiB; slope after the first fifth {slope:+.2f} MiB an hour.")


def _report(results: Mapping[str, Result], plan: Plan) -> None:
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {machine()}")
    print(f"{versions()}\n")
    print(
        f"{GPUS} simulated GPUs with 2 processes each; {len(ENGINES)} engines. A row is {plan.paced} scrapes at random"
        f" moments, {1 / PACE:.0f} a second, then {plan.back_to_back} back to back. ms, p50 / p99 / max.\n"
    )
    print("| Target | Asked | Paced | Back to back | Bytes sent |\n|---|---|---:|---:|---:|")
    for name, result in results.items():
        for asked in FORMATS:
            paced, rapid = (_quantiles(result.latencies[asked, pace]) for pace in ("paced", "back to back"))
            print(f"| {name} | {asked} | {paced} | {rapid} | {result.wire[asked]:,} |")
    print("\n| Target | RSS MiB | Peak MiB | CPU idle | CPU, a scrape a second | Series | Text bytes | Connection |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for name, result in results.items():
        size = f"{result.series:,} | {result.text:,}" if result.series else " | "
        print(
            f"| {name} | {result.rss:.1f} | {result.peak:.1f} | {result.idle:.2f}% | {result.every_second:.2f}%"
            f" | {size} | {'new each time' if result.reconnects else 'kept'} |"
        )
    print()
    for line in _bars(results):
        print(f"- {line}")


def _bars(results: Mapping[str, Result]) -> Iterator[str]:
    for name, most in (
        ("Palegreen, engines every 15 s", 2.0),
        ("Palegreen, everything on, engines every 15 s", 2.0),
        ("Palegreen, engines every 1 s", 5.0),
    ):
        if (result := results.get(name)) is not None:
            p99 = max(_at(took, 99) for took in result.latencies.values())
            checks = [
                ("worst scrape p99", p99, most, "ms"),
                ("peak RSS", result.peak, 80.0, "MiB"),
                ("idle CPU", result.idle, 2.0, "% of a core"),
            ]
            for what, value, bar, unit in checks:
                yield f"{name}: {what} {value:.2f} {unit}, bar {bar:g}: {'met' if value <= bar else 'MISSED'}"


def _quantiles(took: list[float]) -> str:
    return f"{_at(took, 50):.2f} / {_at(took, 99):.2f} / {max(took):.2f}"


def _at(took: list[float], percent: int) -> float:
    """The smallest value that at least `percent` of 100 do not exceed."""
    return sorted(took)[-(-len(took) * percent // 100) - 1]


if __name__ == "__main__":
    sys.exit(main())
