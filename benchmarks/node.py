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
import http.client
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import yaml

from palegreen.demo.driver.build import build
from palegreen.demo.driver.gpu import Process
from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE, Scenario, load

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = ROOT / "tests" / "captures" / "engines"
PEERS = ROOT / ".cache" / "bench-venv"
SERVERS = Path(__file__).with_name("servers.py")

GPUS = 8
ENGINES = ("vllm:/metrics", "sglang:/metrics", "trtllm-serve:/prometheus/metrics", "tgi:/metrics")
# What Prometheus 3 sends.
PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.0",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
PLAIN = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}
FORMATS = {"as Prometheus asks": PROMETHEUS, "plain text": PLAIN}
TICKS = os.sysconf("SC_CLK_TCK")


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
FULL = Plan(settle=5, idle=30, every_second=30, back_to_back=1000, paced=1200)
QUICK = Plan(settle=3, idle=3, every_second=3, back_to_back=100, paced=60)


@dataclass(frozen=True, slots=True)
class Target:
    """Something to scrape: `command` gets a port of its own, or prints the one it has taken."""

    name: str
    command: Callable[[int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    prints_port: bool = False
    engines: int = 0
    gpus: bool = True


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


class Client:
    """One scraper that keeps its connection where the server lets it, as Prometheus does."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.closed = 0

    def scrape(self, headers: Mapping[str, str]) -> tuple[float, bytes, str]:
        """Milliseconds from the request to the last byte, connecting included; the body; its encoding."""
        began = time.perf_counter()
        self._connection.request("GET", "/metrics", headers=dict(headers))
        answer = self._connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise RuntimeError(f"/metrics answered {answer.status}")
        self.closed += answer.will_close
        return took, body, answer.headers.get("Content-Encoding", "")

    def text(self) -> str:
        """The exposition as text."""
        _, body, encoding = self.scrape(PROMETHEUS)
        return (gzip.decompress(body) if encoding == "gzip" else body).decode()


def main() -> int:
    """Run what was asked for."""
    options = _options()
    if options.setup:
        _set_up()
    with tempfile.TemporaryDirectory(prefix="palegreen-bench-") as name:
        folder = Path(name)
        pages = [f"{CAPTURES / file}.prom:{path}" for file, _, path in (engine.partition(":") for engine in ENGINES)]
        library, scenario = _driver(folder)
        uuids = [gpu.uuid for gpu in scenario.gpus]
        pages.append(f"{_dcgm(folder, uuids)}:/metrics")
        with _started([sys.executable, str(SERVERS), "engines", *pages], {}, folder / "engines.log") as engines:
            *ports, dcgm = [int(port) for port in _line(engines).split()]
            _used_by(scenario, (engines.pid, os.getpid())).write(folder / "scenario")
            targets = _targets(folder, library, ports, dcgm)
            if options.soak:
                _soak(targets["Palegreen, engines every 1 s"], uuids, folder, options.soak)
                return 0
            plan = QUICK if options.quick else FULL
            chosen = [t for t in targets.values() if not options.only or any(o in t.name for o in options.only)]
            _say(f"{len(chosen)} targets, about {len(chosen) * plan.seconds() / 60:.0f} minutes")
            results: dict[str, Result] = {}
            for target in chosen:
                _say(f"{target.name} ...")
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


def _set_up() -> None:
    """The peers' own environment. uv resolves in seconds what takes pip very long."""
    if not (PEERS / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    python = str(PEERS / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    wanted = str(Path(__file__).with_name("requirements.txt"))
    uv = [str(PEERS / "bin" / "uv"), "pip", "install", "--quiet", "--python", python, "--upgrade", "-r", wanted]
    subprocess.run(uv, check=True)


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


def _driver(folder: Path) -> tuple[Path, Scenario]:
    """The simulated driver: eight GPUs whose load moves."""
    library = build(folder / "driver")
    eight = resources.files("palegreen.demo.driver") / "eight.yaml"
    data = yaml.safe_load(eight.read_text())
    data["gpus"] = GPUS
    return library, load(data)


def _used_by(scenario: Scenario, pids: Sequence[int]) -> Scenario:
    """Each GPU used by the same live processes."""
    processes = [{"pid": pid, "memory_used": "30GiB", "gpu_utilization": 35} for pid in pids]
    gpus = [
        gpu.model_copy(update={"processes": [Process.model_validate(p) for p in processes]}) for gpu in scenario.gpus
    ]
    return scenario.model_copy(update={"gpus": gpus})


def _targets(folder: Path, library: Path, ports: Sequence[int], dcgm: int) -> dict[str, Target]:
    simulated = {ENVIRONMENT_VARIABLE: str(folder / "scenario")}
    peers = {**simulated, "LD_LIBRARY_PATH": str(library.parent)}
    urls = [argument for port in ports for argument in ("--engine", f"http://127.0.0.1:{port}")]
    pricing = folder / "pricing.json"
    pricing.write_text("{}")
    fixed = folder / "fixed"
    fixed.write_bytes(os.urandom(20_000))

    def node(*arguments: str) -> Callable[[int], list[str]]:
        daemon = [str(Path(sys.executable).with_name("palegreen")), "node", "--nvml-library", str(library)]
        return lambda port: [*daemon, "--listen-address", f"127.0.0.1:{port}", *arguments]

    everything = ["--dcgm", f"http://127.0.0.1:{dcgm}", "--allocator-dir", str(folder)]
    for size in ("small=10GiB", "large=40GiBx2", "largest=70GiBx8"):
        everything += ["--model-size", size]
    python = str(PEERS / "bin" / "python")
    nvitop = [python, "-m", "nvitop_exporter", "--hostname", "node", "--port"]
    listed = [
        Target("Palegreen, engines every 15 s", node(*urls, "--engine-interval", "15s"), simulated, engines=len(ports)),
        Target("Palegreen, engines every 1 s", node(*urls, "--engine-interval", "1s"), simulated, engines=len(ports)),
        Target(
            "Palegreen, everything on, engines every 15 s",
            node(*urls, "--engine-interval", "15s", *everything),
            simulated,
            engines=len(ports),
        ),
        Target("Palegreen, GPUs only", node(), simulated),
        Target("nvitop-exporter", lambda port: [*nvitop, str(port)], peers),
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
        _say("the other tools are not installed: run with --setup; measuring Palegreen alone")
        listed = [target for target in listed if not target.environment.get("LD_LIBRARY_PATH")]
    return {target.name: target for target in listed}


@contextmanager
def _started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    if process.stdout is None or not (line := process.stdout.readline()):
        raise RuntimeError(f"{process.args} ended before it printed its port")
    return line


@contextmanager
def _serving(target: Target, uuids: Sequence[str], folder: Path) -> Iterator[tuple[int, Client]]:
    """The target's process id and a client, once its exposition is complete."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "target.log"
    with _started(target.command(port), target.environment, log) as process:
        if target.prints_port:
            port = int(_line(process))
        until = time.monotonic() + 60
        while True:
            try:
                client = Client(port)
                missing = _missing(target, client, uuids)
            except (OSError, http.client.HTTPException, RuntimeError) as failure:
                missing = str(failure)
            if not missing:
                break
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{target.name} is not ready: {missing}\n{log.read_text()[-2000:]}")
            time.sleep(0.25)
        yield process.pid, client
        if missing := _missing(target, client, uuids):
            raise RuntimeError(f"{target.name} was not complete at the end: {missing}\n{log.read_text()[-2000:]}")


def _missing(target: Target, client: Client, uuids: Sequence[str]) -> str:
    """What the exposition lacks, empty if nothing: every GPU, and every engine."""
    if not target.gpus:
        return ""
    text = client.text()
    gone = [uuid for uuid in uuids if uuid not in text]
    up = len(re.findall(r'^palegreen_source_up\{source="engine".* 1(?:\.0)?$', text, re.MULTILINE))
    if gone:
        return f"GPUs {', '.join(gone)}"
    return f"{target.engines - up} engines" if up < target.engines else ""


def _measure(target: Target, uuids: Sequence[str], folder: Path, plan: Plan) -> Result:
    result = Result()
    with _serving(target, uuids, folder) as (pid, client):
        for name, headers in FORMATS.items():
            _, body, encoding = client.scrape(headers)
            result.wire[name] = len(body)
            if target.gpus:
                text = gzip.decompress(body) if encoding == "gzip" else body
                result.text = len(text)
                result.series = sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
        time.sleep(plan.settle)
        client.closed = 0
        client.scrape(PROMETHEUS)
        result.reconnects = client.closed > 0
        result.idle = _cpu(pid, lambda: time.sleep(plan.idle))
        result.every_second = _cpu(pid, lambda: _scrape_every_second(client, plan.every_second))
        for name, headers in FORMATS.items():
            result.latencies[name, "paced"] = _paced(client, headers, plan.paced)
        for name, headers in FORMATS.items():
            result.latencies[name, "back to back"] = _sampled(client, headers, plan.back_to_back)
        result.rss, result.peak = _memory(pid)
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


def _cpu(pid: int, during: Callable[[], None]) -> float:
    """Percent of one core that a process took, in user and kernel mode, with all its threads."""
    before, began = _ticks(pid), time.monotonic()
    during()
    return 100 * (_ticks(pid) - before) / TICKS / (time.monotonic() - began)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _memory(pid: int) -> tuple[float, float]:
    """Resident and peak resident memory, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss, peak = (re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE) for name in ("VmRSS", "VmHWM"))
    if rss is None or peak is None:
        raise RuntimeError("no VmRSS in /proc")
    return int(rss[1]) / 1024, int(peak[1]) / 1024


def _soak(target: Target, uuids: Sequence[str], folder: Path, seconds: float) -> None:
    samples: list[tuple[float, float]] = []
    with _serving(target, uuids, folder) as (pid, client):
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            client.scrape(PROMETHEUS)
            samples.append((elapsed, _memory(pid)[0]))
            time.sleep(1)
        peak = _memory(pid)[1]
    settled = [sample for sample in samples if sample[0] >= seconds / 5]
    slope = statistics.linear_regression(*zip(*settled, strict=True)).slope * 3600
    print(f"Soak: {target.name}, scraped every second for {seconds:g} s\n")
    print("| Seconds | RSS MiB |\n|---:|---:|")
    for share in range(11):
        elapsed, rss = samples[min(share * len(samples) // 10, len(samples) - 1)]
        print(f"| {elapsed:.0f} | {rss:.1f} |")
    print(f"\nPeak {peak:.1f} MiB; slope after the first fifth {slope:+.2f} MiB an hour.")


def _report(results: Mapping[str, Result], plan: Plan) -> None:
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {_machine()}")
    print(f"{_versions()}\n")
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


def _machine() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {found[1] if found else platform.machine()}, {platform.system()} {platform.release()}"


def _versions() -> str:
    found = {"CPython": platform.python_version()}
    found |= {package: version(package) for package in ("palegreen", "uvicorn", "nvidia-ml-py")}
    if (PEERS / "bin" / "python").exists():
        script = "import json, sys; from importlib.metadata import version as v; "
        script += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
        command = [PEERS / "bin" / "python", "-c", script, "nvitop-exporter", "openlit", "opentelemetry-sdk"]
        found |= json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
