"""What the shipped rules cost in a real Prometheus: evaluation time of each group, series added. Prints Markdown.

    python benchmarks/rules.py --replicas 1000 --minutes 20

One target shows that many replicas of 25 models, each with what the node daemon and the evaluator show of it (engine's
gauges, counters and two histograms, checks, drift, canaries, the projections that peers are compared by), and a GPU for
each. It is scraped every 15 s; the rules are evaluated as shipped, every minute and every five.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import yaml
from scoring import _machine as machine

from palegreen.demo import tools

RULES = Path(__file__).parent.parent / "alerts" / "generated" / "rules.yaml"
MODELS = 25
_BOUNDS = ("0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "20.0", "40.0", "80.0", "160.0", "+Inf")
_CHECKS = ("truncated", "refusal", "json_schema", "repetition", "empty_context", "language", "gibberish", "empty")


def page(replicas: int, minutes: float) -> bytes:
    """Everything that is shown after so many minutes."""
    lines: list[str] = []
    grown = int(60 * minutes)
    for number in range(replicas):
        draw = random.Random(number)
        model, pod, node = f"model-{number % MODELS}", f"pod-{number}", f"node-{number // 8}"
        place = f'endpoint="chat",instance_id="prod/{pod}",namespace="prod",pod="{pod}",node="{node}"'
        engine = f'model="{model}",{place},engine="vllm",instance="{node}:9450"'
        quality = f'model="{model}",{place},instance="{pod}:9451"'
        rate = draw.uniform(0.5, 2)
        served = int(rate * grown)
        lines += [
            f"palegreen_engine_requests_running{{{engine}}} {draw.randint(1, 20)}",
            f'palegreen_engine_requests_waiting{{{engine},reason="capacity"}} 0',
            f"palegreen_engine_kv_cache_usage_ratio{{{engine}}} {draw.random() * 0.8:.3f}",
            f"palegreen_engine_generation_tokens_total{{{engine}}} {served * 180}",
            f'palegreen_engine_prompt_tokens_total{{{engine},source="all"}} {served * 600}',
            f'palegreen_engine_requests_finished_total{{{engine},finish_reason="stop"}} {served}',
            f'palegreen_engine_preemptions_total{{{engine},kind="recompute"}} 0',
            f'palegreen_engine_state{{{engine},state="ready"}} 1',
            f'palegreen_engine_gpu_info{{{engine},uuid="GPU-{number}",mig=""}} 1',
        ]
        for metric in ("time_to_first_token", "inter_token_latency"):
            for at, bound in enumerate(_BOUNDS):
                within = int(served * min(1, (at + 4) / 12))
                lines.append(f'palegreen_engine_{metric}_seconds_bucket{{{engine},le="{bound}"}} {within}')
            lines.append(f"palegreen_engine_{metric}_seconds_count{{{engine}}} {served}")
        for metric in range(40):
            lines.append(
                f'palegreen_engine_metric_supported{{{engine},metric="palegreen_engine_{metric}",quality="native"}} 1'
            )
        lines += [
            f'palegreen_quality_samples_total{{{quality},tap="proxy",sampled="rate",result="pass"}} {served // 10}',
            f'palegreen_quality_samples_total{{{quality},tap="proxy",sampled="rate",result="fail"}} {served // 300}',
            f'palegreen_tap_received_total{{{place},tap="proxy",instance="{pod}:9451"}} {served}',
            f'palegreen_canary_runs_total{{{quality},canary="capital",result="pass"}} {grown // 60}',
            f'palegreen_baseline_info{{{quality},baseline="b1",embedder="minilm",evaluator_version="0.1"}} 1',
        ]
        lines += [
            f'palegreen_quality_checks_total{{{quality},check="{check}",result="{result}"}} {served // share}'
            for check in _CHECKS
            for result, share in (("pass", 10), ("fail", 500))
        ]
        for channel in ("response", "prompt"):
            samples = served // 10
            basis = f'{quality},channel="{channel}",basis="b"'
            lines.append(f'palegreen_drift_score_ratio{{{quality},channel="{channel}"}} 0.3')
            lines.append(f"palegreen_drift_samples_total{{{basis}}} {samples}")
            lines.append(f"palegreen_drift_batches_total{{{basis}}} {samples // 16}")
            lines.append(f"palegreen_drift_batch_distance_sum_total{{{basis}}} {samples * 2}")
            lines.append(f"palegreen_drift_batch_distance_square_sum_total{{{basis}}} {samples * 68}")
            for dim in range(32):
                lines.append(
                    f'palegreen_drift_projection_sum_total{{{basis},dim="{dim}"}} {samples * 5 + draw.random():.3f}'
                )
                lines.append(
                    f'palegreen_drift_projection_square_sum_total{{{basis},dim="{dim}"}} {samples + draw.random():.3f}'
                )
        gpu = f'uuid="GPU-{number}",gpu="{number % 8}",mig="",node="{node}",instance="{node}:9450"'
        lines += [
            f"palegreen_gpu_up{{{gpu}}} 1",
            f"palegreen_gpu_busy_seconds_total{{{gpu}}} {grown * 0.6:.1f}",
            f"palegreen_gpu_sampled_seconds_total{{{gpu}}} {grown}",
            f"palegreen_gpu_memory_used_bytes{{{gpu}}} 7e10",
            f"palegreen_gpu_memory_total_bytes{{{gpu}}} 8e10",
            *(
                f'palegreen_gpu_throttled_seconds_total{{{gpu},reason="{reason}"}} 0'
                for reason in ("sw_power_cap", "hw_thermal")
            ),
        ]
    return ("\n".join(lines) + "\n").encode()


def serve(replicas: int) -> ThreadingHTTPServer:
    """The target, on a free port."""
    began = time.monotonic()

    class Requests(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page(replicas, (time.monotonic() - began) / 60)
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def ask(url: str, path: str, **arguments: str) -> Any:
    """What Prometheus answers."""
    with urllib.request.urlopen(f"{url}{path}?{urllib.parse.urlencode(arguments)}", timeout=120) as answer:
        return json.loads(answer.read())["data"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=20)
    arguments = parser.parse_args()
    prometheus = tools.find("prometheus")
    if prometheus.path is None:
        sys.exit(f"prometheus: {prometheus.reason}")
    server = serve(arguments.replicas)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = {
            "global": {"scrape_interval": "15s", "scrape_timeout": "14s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "fleet",
                    "honor_labels": True,
                    "static_configs": [{"targets": [f"127.0.0.1:{server.server_address[1]}"]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = "19397"
        command = [
            prometheus.path,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
        ]
        url = f"http://127.0.0.1:{port}"
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
            try:
                time.sleep(60 * arguments.minutes)
                report(url, arguments.replicas, arguments.minutes)
            finally:
                process.terminate()
                process.wait(60)
    server.shutdown()


def report(url: str, replicas: int, minutes: float) -> None:
    """The table."""
    print(f"{datetime.date.today()}; {machine()}; {replicas:,} replicas, {minutes:g} minutes after the start")
    print("\n| group | rules | interval, s | evaluation, s | share of the interval |\n|---|---:|---:|---:|---:|")
    rules: list[dict[str, Any]] = []
    for group in ask(url, "/api/v1/rules")["groups"]:
        rules += group["rules"]
        took, every = group["evaluationTime"], group["interval"]
        broken = [rule["lastError"] for rule in group["rules"] if rule["health"] == "err"]
        print(f"| {group['name']} | {len(group['rules'])} | {every:g} | {took:.2f} | {took / every:.1%} |")
        for error in broken:
            print(f"\n{error}\n")
    slowest = sorted(
        ((rule["evaluationTime"], rule["name"], rule.get("labels", {}).get("cause", "")) for rule in rules),
        reverse=True,
    )
    print("\nSlowest rules: " + "; ".join(f"{name} {cause} {took:.2f} s" for took, name, cause in slowest[:8]) + ".")
    scraped = ask(url, "/api/v1/query", query="scrape_samples_scraped")["result"][0]["value"][1]
    recorded = ask(url, "/api/v1/query", query='count({__name__=~"palegreen:.*|ALERTS.*"})')["result"][0]["value"][1]
    print(
        f"\nScraped: {int(scraped):,} series, {int(scraped) / replicas:.0f} a replica. "
        f"Recorded: {int(recorded):,}, {int(recorded) / replicas:.0f} a replica."
    )
    memory = ask(url, "/api/v1/status/tsdb")["headStats"]["numSeries"]
    print(f"Series in memory: {memory:,}.")


if __name__ == "__main__":
    main()
