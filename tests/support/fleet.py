"""A small fleet of our own: both daemons with simulated GPUs, engines and users, and a real Prometheus that scrapes it.

    with Fleet(folder) as fleet:
        fleet.query("palegreen:verdict")

Rules run with `time_scale: 60`, so that seconds stand for minutes.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.rules import render_rules
from palegreen.inprocess.torchstats import summaries
from support.daemon import Daemon
from support.deploying import post
from support.gpus import Machine, library
from support.host import Host
from support.jsonserver import Asked, JsonServer
from support.prometheus import Prometheus, static
from support.replica import Replica
from support.senders import otlp
from support.server import Link, Server, response
from support.serving import Writer
from support.waiting import until

CAPTURES = Path(__file__).parents[1] / "captures"
ENGINES = (
    "vllm", "vllm-0.10.2-legacy-names", "vllm-lora", "sglang", "tgi", "trtllm-serve", "triton-trtllm", "lmdeploy",
    "llamacpp-b11669-real", "kserve-python", "ray-serve-llm", "dynamo-frontend",
)  # fmt: skip
"""The samples of engines whose pages the node daemon reads, each as a pod of its own."""
REPLICAS = ("chat-0", "chat-1", "chat-2")
UUID = "11111111-2222-3333-4444-555555555555"
_GROWS = re.compile(r"^([A-Za-z_:][\w:]*)(\{.*\})? ([0-9.eE+]+)$")


def engine_names() -> list[str]:
    """Every engine of the fleet, as the pod it is."""
    return [*ENGINES, "ollama-api-ps"]


def growing(page: str) -> Callable[[Link], None]:
    """A page whose counters and histograms grow as time goes by, all of them alike."""
    counted = set(re.findall(r"^# TYPE (\S+) (?:counter|histogram)$", page, re.MULTILINE))
    began = time.monotonic()

    def grown(line: str) -> str:
        found = _GROWS.match(line)
        if found is None:
            return line
        name, labels, value = found[1], found[2] or "", float(found[3])
        if name not in counted and re.sub(r"_(bucket|sum|count|total)$", "", name) not in counted:
            return line
        passed = time.monotonic() - began
        return f"{name}{labels} {value * (1 + 0.1 * (passed + 8 * math.sin(passed / 15)))!r}"

    lines = page.splitlines()
    return lambda link: link.send(response("".join(f"{grown(line)}\n" for line in lines)))


class Fleet:
    """Starts everything on entering and waits until Prometheus has seen it for a while; ends it all on leaving."""

    def __init__(self, folder: Path, drivers: Path) -> None:
        self._folder, self._drivers = folder, drivers
        self._stack = contextlib.ExitStack()
        self._over = Event()

    def __enter__(self) -> Self:
        try:
            node = self._stack.enter_context(self._node())
            evaluator = self._evaluator()
            self._scrape(node.port, evaluator.port)
            self._stack.callback(self._over.set)
            Thread(target=self._users, args=(evaluator,), daemon=True).start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def api(self, path: str, **given: str) -> Any:
        """What Prometheus' API answers."""
        return self._prometheus.api(path, **given)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series now."""
        return self._prometheus.query(expression)

    def over_time(self, expression: str, seconds: float, step: float, end: float = 0.0) -> list[dict[str, Any]]:
        """Series of the last seconds, or of those before `end`."""
        now = end or time.time()
        given = {"query": expression, "start": str(now - seconds), "end": str(now), "step": str(step)}
        found: list[dict[str, Any]] = self.api("query_range", **given)["result"]
        return found

    # What there is to see.

    def _node(self) -> Daemon:
        host = Host(self._folder / "host")
        self._hosted(host)
        records = self._folder / "allocator"
        records.mkdir()
        writer = self._stack.enter_context(Writer(records))
        (host.proc / str(writer.pid)).symlink_to(f"/proc/{writer.pid}")
        writer.write(json.dumps(_allocator()).encode())
        self._repeat(5, lambda: writer.write(json.dumps(_allocator()).encode()))
        machine = Machine(self._folder, library(self._drivers), _scenario())
        pages: dict[str, Any] = {}
        for name in ENGINES:
            pages[name] = self._stack.enter_context(
                Server({"/metrics": growing((CAPTURES / "engines" / f"{name}.prom").read_text(encoding="utf-8"))})
            )
        ollama = (CAPTURES / "engines" / "ollama-api-ps.json").read_bytes()
        pages["ollama-api-ps"] = self._stack.enter_context(Server({"/api/ps": response(ollama, "application/json")}))
        config = {
            "host_root": str(host.root),
            "allocator_dir": str(records),
            "engine_interval": "1s",
            "engine_timeout": "10s",
            "model_sizes": [{"name": "llama-8b", "memory": "20GiB"}],
            "engines": [
                {"url": server.url, "endpoint": "samples", "namespace": "samples", "pod": name, "model": f"of-{name}"}
                if name in ("ollama-api-ps",)
                else {"url": server.url, "endpoint": "samples", "namespace": "samples", "pod": name}
                for name, server in pages.items()
            ],
        }
        file = self._folder / "node.yaml"
        file.write_text(yaml.safe_dump(config))
        self._repeat(2, lambda: machine.play(_scenario(events=int(time.monotonic()) // 2)))
        return machine.daemon("--config", str(file), "--network", "--attribution")

    def _hosted(self, host: Host) -> None:
        for number, pid in enumerate((101, 102, 103)):
            uid = f"11111111-0000-0000-0000-00000000000{number}"
            identity = f"{number}" * 64
            slices = f"/kubepods.slice/kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{identity}.scope"
            host.pod("samples", ("vllm", "vllm", "sglang")[number] if number != 1 else "vllm-lora", uid, main=identity)
            host.process(pid, slices)
            self._held_back(host, slices, 1)
            self._repeat(1, lambda slices=slices: self._held_back(host, slices, int(time.monotonic())))
        port = host.root / "sys/class/infiniband/mlx5_0/ports/1"
        (port / "counters").mkdir(parents=True)
        for name, text in {
            "link_layer": "InfiniBand", "state": "4: ACTIVE", "phys_state": "5: LinkUp",
            "rate": "400 Gb/sec (4X NDR)", "counters/symbol_error": "3", "counters/port_rcv_errors": "1",
        }.items():  # fmt: skip
            (port / name).write_text(f"{text}\n")

    def _held_back(self, host: Host, cgroup: str, seconds: int) -> None:
        """A container that waits for a CPU for a tenth of the time, and uses up a fifth of its periods."""
        host.cgroup(
            cgroup,
            cpu_pressure=f"some avg10=0.00 avg60=0.00 avg300=0.00 total={100_000 * seconds}\n",
            cpu_stat=f"usage_usec 9\nnr_periods {10 * seconds}\nnr_throttled {2 * seconds}\nthrottled_usec 5\n",
        )

    def _evaluator(self) -> Daemon:
        replica = self._stack.enter_context(Replica())
        reference = self._folder / "reference.json"
        subprocess.run(
            _palegreen(
                "canary", "record", "--url", replica.url, "--prompts", str(files("palegreen.demo") / "canaries.yaml"),
                "--out", str(reference), "--repeat", "2", "--sampled", "2",
            ),
            check=True, capture_output=True,
        )  # fmt: skip
        index = self._stack.enter_context(JsonServer(lambda asked: (200, {"ids": list(range(10))})))
        judge = self._stack.enter_context(JsonServer(_judged))
        (self._folder / "queries.jsonl").write_text("".join(f'{{"text": "question {n}"}}\n' for n in range(50)))
        baselines = self._folder / "baselines"
        shutil.copytree(str(files("palegreen.demo") / "baseline"), baselines / "first")
        (baselines / "current").symlink_to("first")
        self._samples = self._folder / "samples.jsonl"
        self._samples.touch()
        config = {
            "endpoint": "chat", "namespace": "prod", "pod": REPLICAS[0], "model": "assistant",
            "upstream": replica.url, "proxy_address": "127.0.0.1:0", "sink_address": "127.0.0.1:0",
            "file": str(self._samples), "baseline": str(baselines), "store": str(self._folder / "samples.db"),
            "revision": "r1",
            "canary": {
                "reference": str(reference), "requests_per_minute": 60, "sampled_share": 0.3,
                "progress_interval": "1s",
            },
            "retrieval": [{
                "index": "docs", "k": 10, "http": {"url": index.url}, "interval": "1s",
                "queries": str(self._folder / "queries.jsonl"),
            }],
            "judge": {
                "url": f"{judge.url}/v1", "model": "judge-1", "requests_per_hour": 3600, "background_per_hour": 3600,
            },
        }  # fmt: skip
        file = self._folder / "evaluate.yaml"
        file.write_text(yaml.safe_dump(config))
        return self._stack.enter_context(Daemon("--config", str(file), command=("evaluate",)))

    def _users(self, evaluator: Daemon) -> None:
        """Samples of three replicas, requests through the proxy, traces, thumbs and a deployment."""
        proxy, sink = (until(lambda key=key: _address(evaluator, key), 60) for key in ("proxy", "sink"))
        with gzip.open(CAPTURES / "drift" / "clean.jsonl.gz", "rt", encoding="utf-8") as lines:
            recorded = [json.loads(line) for line in lines]
        for number in range(10_000):
            with contextlib.suppress(OSError):
                with self._samples.open("a", encoding="utf-8") as out:
                    for place in range(12):
                        at = 12 * number + place
                        sample = recorded[at % len(recorded)] | {
                            "id": f"u{at}", "time": time.time(), "replica": f"prod/{REPLICAS[place % 3]}",
                            "trace_id": f"{at + 1:032x}", "ttft_seconds": 0.2 + 0.01 * place, "duration_seconds": 1.5,
                            "system_fingerprint": f"fp{number // 8}",
                        }  # fmt: skip
                        out.write(json.dumps(sample) + "\n")
                _ask(proxy, number)
                _send(sink, "/feedback", json.dumps({"response_id": f"u{12 * number}", "kind": "thumbs_up"}).encode())
                _trace(sink, number)
                if number == 3:
                    post(evaluator)
            if self._over.wait(1):
                return

    def _repeat(self, seconds: float, work: Callable[[], object]) -> None:
        def go() -> None:
            while not self._over.wait(seconds):
                with contextlib.suppress(OSError, ValueError):
                    work()

        Thread(target=go, daemon=True).start()

    def _scrape(self, node: int, evaluator: int) -> None:
        objectives = {"objectives": {"latency": {"ttft_seconds": 2.0}, "availability": {}, "quality": {}}}
        models = [{"model": name, **objectives} for name in ("assistant", "meta-llama/Llama-3.1-8B-Instruct")]
        rules = render_rules(AlertsConfig.model_validate({"time_scale": 60, "models": models}))
        (self._folder / "rules.yaml").write_text(rules, encoding="utf-8")
        labels = {"cluster": "test", "node": "node-1"}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                static("palegreen-node", f"127.0.0.1:{node}", **labels),
                static("palegreen-evaluator", f"127.0.0.1:{evaluator}", **labels),
            ],
        }
        started = Prometheus(self._folder, config, "--enable-feature=exemplar-storage")
        self._prometheus = self._stack.enter_context(started)
        until(lambda: self.query("up"), 30)


def _palegreen(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "palegreen.cli.main", *arguments]


def _address(daemon: Daemon, key: str) -> str:
    for line in daemon.events("tap.ready"):
        if found := re.search(rf"{key}\w*=(127\.0\.0\.1:\d+)", line):
            return found[1]
    return ""


def _trace(sink: str, number: int) -> None:
    """A chain that was not sent before."""
    for recorded in otlp("openinference", "plain"):
        whole = ExportTraceServiceRequest.FromString(recorded.body)
        for of_resource in whole.resource_spans:
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    span.trace_id = number.to_bytes(16, "big")
        _send(sink, recorded.path, whole.SerializeToString(), recorded.headers)


def _ask(proxy: str, number: int) -> None:
    trace = {"content-type": "application/json", "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01"}
    body = {"model": "small", "max_tokens": 8, "messages": [{"role": "user", "content": f"tell me of {number}"}]}
    _send(proxy, "/v1/chat/completions", json.dumps(body).encode(), trace)
    _send(proxy, "/v1/chat/completions", json.dumps(body).encode(), trace | {"x-palegreen-canary": "1"})


def _send(address: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    request = urllib.request.Request(f"http://{address}{path}", body, dict(headers or {}))
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def _judged(_: Asked) -> tuple[int, Any]:
    content = json.dumps({"score": 0.8, "reasons": "Right and short."})
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
    return 200, {"id": "c1", "object": "chat.completion", "model": "judge-1", "choices": [choice], "usage": usage}


def _allocator() -> dict[str, Any]:
    gib = 1 << 30
    device: dict[str, Any] = {
        "uuid": UUID, "allocated": 6 * gib, "active": 6 * gib, "reserved": 10 * gib, "requested": 5 * gib,
        "inactive_split": gib, "retries": 2, "ooms": 1,
    }  # fmt: skip
    blocks = [
        {"state": state, "size": gib, "requested_size": gib}
        for state in ("active_allocated", "inactive", "active_allocated", "inactive")
    ]
    segment = {"device": 0, "total_size": 4 * gib, "allocated_size": 2 * gib, "stream": 0, "blocks": blocks}
    device["snapshot"] = summaries([segment])[0]
    return {"backend": "native", "stats_seconds": 0.0002, "devices": [device]}


def _scenario(events: int = 0) -> dict[str, Any]:
    def process(pid: int) -> dict[str, Any]:
        return {"pid": pid, "memory_used": 30 << 30, "gpu_utilization": 40}

    return {
        "privileged": True,
        "gpus": [
            {"uuid": f"GPU-{UUID}", "processes": [process(101)], "reason_sw_thermal": 1, "temperature": 80},
            {"processes": [process(101)], "gpu_utilization": 55},
            {"processes": [process(102)], "reason_sw_power_cap": 1, "power": 690},
            {"processes": [process(103)]},
            {"mig": [{"profile": "1g.10gb"}]},
        ],
        "events": [{"gpu": 3, "xid": 63, "id": events}],
    }
