"""What the measurements of the node daemon share: targets to start and scrape, the simulated driver, CPU and memory."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import yaml

from palegreen.demo.driver.build import build
from palegreen.demo.driver.scenario import Scenario, load

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".cache" / "bench-venv"
GPUS = 8
# What Prometheus 3 sends.
PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.0",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Target:
    """Something to scrape: `command` gets a port of its own, or prints the one it has taken."""

    name: str
    command: Callable[[int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    prints_port: bool = False
    engines: int = 0
    gpus: bool = True


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


def set_up() -> None:
    """The peers' own environment. uv resolves in seconds what takes pip very long."""
    if not (PEERS / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    python = str(PEERS / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    wanted = str(Path(__file__).with_name("requirements.txt"))
    uv = [str(PEERS / "bin" / "uv"), "pip", "install", "--quiet", "--python", python, "--upgrade", "-r", wanted]
    subprocess.run(uv, check=True)


def steady_driver(folder: Path, pids: Sequence[int]) -> tuple[Path, Scenario]:
    """The simulated driver: eight GPUs whose load moves, each used by the same two live processes."""
    library = build(folder / "driver")
    eight = resources.files("palegreen.demo.driver") / "eight.yaml"
    data = yaml.safe_load(eight.read_text())
    data["gpus"] = GPUS
    data["each"]["processes"] = [{"pid": pid, "memory_used": "30GiB", "gpu_utilization": 35} for pid in pids]
    scenario = load(data)
    scenario.write(folder / "scenario")
    return library, scenario


@contextmanager
def started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended by its id; its standard error goes to `log`."""
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


def printed_line(process: subprocess.Popen[str]) -> str:
    """What the process printed first; raises RuntimeError where it ended before."""
    if process.stdout is None or not (line := process.stdout.readline()):
        raise RuntimeError(f"{process.args} ended before it printed its port")
    return line


@contextmanager
def serving(target: Target, uuids: Sequence[str], folder: Path) -> Iterator[tuple[int, Client]]:
    """The target's process id and a client, once its exposition is complete."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / f"target-{port}.log"
    with started(target.command(port), target.environment, log) as process:
        if target.prints_port:
            port = int(printed_line(process))
        until = time.monotonic() + 60
        while True:
            try:
                client = Client(port)
                missing = lacking(target, client, uuids)
            except (OSError, http.client.HTTPException, RuntimeError) as failure:
                missing = str(failure)
            if not missing:
                break
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{target.name} is not ready: {missing}\n{log.read_text()[-2000:]}")
            time.sleep(0.25)
        yield process.pid, client
        if missing := lacking(target, client, uuids):
            raise RuntimeError(f"{target.name} was not complete at the end: {missing}\n{log.read_text()[-2000:]}")


def lacking(target: Target, client: Client, uuids: Sequence[str]) -> str:
    """What the exposition lacks, empty if nothing: every GPU, and every engine."""
    if not target.gpus:
        return ""
    text = client.text()
    gone = [uuid for uuid in uuids if uuid not in text]
    up = len(re.findall(r'^palegreen_source_up\{source="engine".* 1(?:\.0)?$', text, re.MULTILINE))
    if gone:
        return f"GPUs {', '.join(gone)}"
    return f"{target.engines - up} engines" if up < target.engines else ""


def cpu(pid: int, during: Callable[[], None]) -> float:
    """Percent of one core that a process took, in user and kernel mode, with all its threads."""
    before, began = cpu_seconds(pid), time.monotonic()
    during()
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - began)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has taken, in user and kernel mode, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> tuple[float, float]:
    """Resident and peak resident memory, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss, peak = (re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE) for name in ("VmRSS", "VmHWM"))
    if rss is None or peak is None:
        raise RuntimeError("no VmRSS in /proc")
    return int(rss[1]) / 1024, int(peak[1]) / 1024


def machine() -> str:
    """Cores, processor and kernel."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {found[1] if found else platform.machine()}, {platform.system()} {platform.release()}"


def versions() -> str:
    """Versions of what is measured and of what it stands on."""
    found = {"CPython": platform.python_version()}
    found |= {package: version(package) for package in ("palegreen", "uvicorn", "nvidia-ml-py")}
    if (PEERS / "bin" / "python").exists():
        script = "import json, sys; from importlib.metadata import version as v; "
        script += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
        command = [PEERS / "bin" / "python", "-c", script, "nvitop-exporter", "openlit", "opentelemetry-sdk"]
        found |= json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return ", ".join(f"{name} {number}" for name, number in found.items())


def say(text: str) -> None:
    """Progress, on standard error: standard output is the report."""
    print(text, file=sys.stderr, flush=True)


def node_daemon(library: Path, *arguments: str) -> Callable[[int], list[str]]:
    """The command of the daemon over that driver, for a Target."""
    daemon = [str(Path(sys.executable).with_name("palegreen")), "node", "--nvml-library", str(library)]
    return lambda port: [*daemon, "--listen-address", f"127.0.0.1:{port}", *arguments]


def nvitop_exporter(port: int) -> list[str]:
    """The command of nvitop-exporter, for a Target; it finds the driver by LD_LIBRARY_PATH."""
    return [str(PEERS / "bin" / "python"), "-m", "nvitop_exporter", "--hostname", "node", "--port", str(port)]
