"""What the reverse proxy adds to a request, beside HAProxy, vllm-router and LiteLLM in front of the same upstream.

    python benchmarks/proxy.py --setup     once: the other proxies and guidellm's mock server
    python benchmarks/proxy.py             about 20 minutes; prints Markdown
    python benchmarks/proxy.py --quick     about a minute: does it work?

One client keeps one connection to each and asks one after another, in an order drawn anew each round, so that
whatever else the machine does meets all alike. Added is the difference to asking upstream directly.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import ROOT, machine, memory, printed_line, say, started

PEERS = ROOT / ".cache" / "benchmarks"
UPSTREAM = Path(__file__).with_name("upstream.py")

# Each in an environment of its own. guidellm is wanted for its mock server alone, not for what it depends on.
PACKAGES = {
    "litellm": ["litellm[proxy]"],
    "router": ["vllm-router"],
    "guidellm": ["loguru", "pydantic", "pydantic-settings", "sanic", "transformers", "faker"],
}
HAPROXY = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0")  # Debian packages, unpacked and not installed

# Nothing fetched, nothing logged; nobody is asked for a key, as by the others: it only listens on 127.0.0.1.
LITELLM = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy to start: its command."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked."""

    warm_up: int
    rounds: int
    load: int  # requests before memory is read


FULL = Plan(warm_up=200, rounds=3000, load=100_000)
QUICK = Plan(warm_up=20, rounds=150, load=2_000)


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = self._connected()

    def ask(self, stream: bool) -> tuple[float, float]:
        """Milliseconds to the first byte of the body and to its last."""
        body = json.dumps(
            {"model": "mock", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 16}
            | ({"stream": True} if stream else {})
        ).encode()
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer none\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        began = time.perf_counter()
        self._socket.sendall(request)
        received, first = b"", 0.0
        while True:
            data = self._socket.recv(1 << 18)
            if not data:
                raise RuntimeError(f"the connection ended: {received[-200:]!r}")
            received += data
            at = received.find(b"\r\n\r\n") + 4
            if at > 3 and len(received) > at:
                first = first or time.perf_counter()
                if _is_whole(received[:at].lower(), received, at):
                    break
        total = time.perf_counter()
        if not received.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(received[:500].decode(errors="replace"))
        if b"connection: close" in received[:at].lower():
            self._socket.close()
            self._socket = self._connected()
        return (first - began) * 1000, (total - began) * 1000

    def close(self) -> None:
        """End."""
        self._socket.close()

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _is_whole(head: bytes, received: bytes, at: int) -> bool:
    if b"transfer-encoding: chunked" in head:
        return received.endswith(b"0\r\n\r\n")
    return len(received) - at >= int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="install the other tools first (needs a package index)")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its numbers mean little")
    options = parser.parse_args()
    if options.setup:
        set_up()
    plan = QUICK if options.quick else FULL
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {machine()}\n")
    with tempfile.TemporaryDirectory(prefix="palegreen-bench-") as name:
        folder = Path(name)
        for kind, python in (("guidellm", PEERS / "guidellm" / "bin" / "python"), ("fixed", Path(sys.executable))):
            if not python.exists():
                say(f"{kind} is not installed: run with --setup")
                continue
            with _upstream(kind, python, folder) as port:
                _compare(kind, port, folder, plan)
    return 0


def set_up() -> None:
    """The peers' environments."""
    tools = PEERS / "tools"
    subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
    subprocess.run([tools / "bin" / "pip", "install", "--quiet", "uv"], check=True)
    uv = str(tools / "bin" / "uv")
    for name, packages in PACKAGES.items():
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", PEERS / name], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", PEERS / name / "bin" / "python"]
        subprocess.run([*install, *packages], check=True)
        if name == "guidellm":
            subprocess.run([*install, "--no-deps", "guidellm"], check=True)
    subprocess.run(["apt-get", "download", "-qq", *HAPROXY], cwd=PEERS, check=True)
    for package in PEERS.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, PEERS / "haproxy"], check=True)


@contextmanager
def _upstream(kind: str, python: Path, folder: Path) -> Iterator[int]:
    port = _free_port()
    with started([str(python), str(UPSTREAM), kind, str(port)], {}, folder / f"{kind}.log") as process:
        printed_line(process)
        yield port


def _compare(kind: str, upstream: int, folder: Path, plan: Plan) -> None:
    took: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    rss: dict[str, tuple[float, float]] = {}
    with ExitStack() as stack:
        direct = Client(upstream)
        stack.callback(direct.close)
        clients, processes = {"direct": direct}, {}
        for target, port in _targets(upstream, folder):
            say(f"{kind}: starting {target.name} ...")
            log = folder / f"{kind}-{port}.log"
            processes[target.name] = stack.enter_context(started(target.command, target.environment, log)), port
            clients[target.name] = _ready(port, processes[target.name][0], log)
            stack.callback(clients[target.name].close)
        say(f"{kind}: asking ...")
        order = [(name, stream) for name in clients for stream in (False, True)]
        for name, stream in order * plan.warm_up:
            clients[name].ask(stream)
        draw = random.Random(1)
        gc.collect()
        gc.disable()
        for _ in range(plan.rounds):
            draw.shuffle(order)
            for name, stream in order:
                took.setdefault((name, stream), []).append(clients[name].ask(stream))
        gc.enable()
        for name, (process, port) in processes.items():
            if kind == "fixed" and name.startswith("Palegreen"):
                say(f"{kind}: {plan.load:,} requests to {name} ...")
                _load(port, plan.load)
            rss[name] = memory(_serving(process.pid))
    _report(kind, took, rss, plan)


def _targets(upstream: int, folder: Path) -> Iterator[tuple[Target, int]]:
    url = f"http://127.0.0.1:{upstream}"
    for share, name in (("0.1", "Palegreen, a tenth scored"), ("1", "Palegreen, all scored")):
        port = _free_port()
        command = [sys.executable, "-m", "palegreen.cli.main", "evaluate", "--upstream", url, "--embedder", "static"]
        command += ["--proxy-address", f"127.0.0.1:{port}", "--listen-address", "127.0.0.1:0", "--sample-rate", share]
        yield Target(name, command), port
    if (PEERS / "haproxy").exists():
        port, file = _free_port(), folder / f"haproxy-{upstream}.cfg"
        file.write_text(
            "global\n  maxconn 1000\ndefaults\n  mode http\n  option http-no-delay\n"
            "  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
            f"listen all\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{upstream}\n"
        )
        libraries = str(PEERS / "haproxy/usr/lib/x86_64-linux-gnu")
        command = [str(PEERS / "haproxy/usr/sbin/haproxy"), "-db", "-f", str(file)]
        yield Target("HAProxy, http-no-delay", command, {"LD_LIBRARY_PATH": libraries}), port
    if (router := PEERS / "router/bin/vllm-router").exists():
        port = _free_port()
        command = [str(router), "--host", "127.0.0.1", "--port", str(port), "--worker-urls", url]
        command += ["--policy", "round_robin", "--prometheus-port", str(_free_port())]
        yield Target("vllm-router", command), port
    if (litellm := PEERS / "litellm/bin/litellm").exists():
        port, file = _free_port(), folder / f"litellm-{upstream}.json"
        parameters = {"model": "openai/mock", "api_base": f"{url}/v1", "api_key": "none"}
        file.write_text(json.dumps({"model_list": [{"model_name": "mock", "litellm_params": parameters}]}))
        command = [str(litellm), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
        yield Target("LiteLLM proxy", command, LITELLM), port


def _serving(pid: int) -> int:
    """The process that relays: of Palegreen the tap, which is a child."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"taps.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return pid


def _ready(port: int, process: subprocess.Popen[str], log: Path) -> Client:
    until = time.monotonic() + 120
    while True:
        try:
            client = Client(port)
            client.ask(stream=False)
        except (OSError, RuntimeError) as failure:
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{process.args} is not ready: {failure}\n{log.read_text()[-2000:]}") from None
            time.sleep(0.25)
        else:
            return client


def _load(port: int, requests: int, connections: int = 8) -> None:
    def ask() -> None:
        client = Client(port)
        for number in range(requests // connections):
            client.ask(stream=number % 2 == 0)
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _report(
    kind: str,
    took: Mapping[tuple[str, bool], Sequence[tuple[float, float]]],
    rss: Mapping[str, tuple[float, float]],
    plan: Plan,
) -> None:
    upstream = "guidellm's mock server" if kind == "guidellm" else "a server of fixed bytes"
    print(f"Upstream: {upstream}; {plan.rounds} requests each. ms, p50 / p99; added: difference of the medians.\n")
    print("| Proxy | Response | First byte | Added | Total | Added | RSS MiB | Peak |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    names = ["direct", *rss]
    for name, stream in [(name, stream) for stream in (False, True) for name in names]:
        pairs = took[name, stream]
        cells = []
        for part in (0, 1):
            own = [pair[part] for pair in pairs]
            floor = statistics.median(pair[part] for pair in took["direct", stream])
            cells.append(f"{statistics.median(own):.2f} / {_p99(own):.2f} | {statistics.median(own) - floor:+.2f}")
        size = "{:.0f} | {:.0f}".format(*rss[name]) if name in rss else " | "
        print(f"| {name} | {'streamed' if stream else 'whole'} | {cells[0]} | {cells[1]} | {size} |")
    print()
    for line in _bars(kind, took, rss, plan):
        print(f"- {line}")
    print()


def _bars(
    kind: str,
    took: Mapping[tuple[str, bool], Sequence[tuple[float, float]]],
    rss: Mapping[str, tuple[float, float]],
    plan: Plan,
) -> Iterator[str]:
    def added(name: str) -> list[float]:
        return [
            statistics.median(pair[part] for pair in took[name, stream])
            - statistics.median(pair[part] for pair in took["direct", stream])
            for stream in (False, True)
            for part in (0, 1)
        ]

    for name in (name for name in rss if name.startswith("Palegreen")):
        worst = max(added(name))
        yield f"{name}: adds at most {worst:.2f} ms at p50, bar 1: {'met' if worst <= 1 else 'MISSED'}"
        if "LiteLLM proxy" in rss:
            times = min(theirs / ours for theirs, ours in zip(added("LiteLLM proxy"), added(name), strict=True))
            yield f"{name}: LiteLLM adds at least {times:.0f} times as much, bar 5: {'met' if times >= 5 else 'MISSED'}"
        if kind == "fixed":
            size = rss[name][0]
            verdict = "met" if size <= 120 else "MISSED"
            yield f"{name}: RSS after {plan.load:,} requests {size:.0f} MiB, bar 120: {verdict}"


def _p99(took: list[float]) -> float:
    return sorted(took)[-(-len(took) * 99 // 100) - 1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(main())
