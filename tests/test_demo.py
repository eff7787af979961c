"""The whole loop on one machine, with the real engine: what the metrics say is what the answers said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import PROGRAM, Daemon
from support.waiting import until

from palegreen.demo import engine
from palegreen.demo.live import Live, Samples
from palegreen.demo.traffic import Traffic

needs_engine = pytest.mark.skipif(engine.available() is not None, reason=str(engine.available()))


@needs_engine
def test_generation_tokens_under_load_agree_with_the_answers_of_the_real_server() -> None:
    with (
        engine.LlamaServer().start() as server,
        Daemon("--engine", server.url, "--engine-interval", "300ms", "--engine-timeout", "30s") as daemon,
    ):
        until(lambda: daemon.value("palegreen_source_up", source="engine") == 1, 20)
        seen = [daemon.value("palegreen_engine_generation_tokens_total") or 0.0]
        with Traffic(server.url, concurrency=3, max_requests=12, max_tokens=24) as traffic:
            while not traffic.wait(0.4):
                seen.append(daemon.value("palegreen_engine_generation_tokens_total") or 0.0)
            totals = traffic.totals()
        assert totals.ok == 12
        assert seen == sorted(seen)
        assert len(set(seen)) > 2, "it rises while the load runs"
        until(lambda: daemon.value("palegreen_engine_generation_tokens_total") == totals.completion_tokens, 10)
        computed = daemon.value("palegreen_engine_prompt_tokens_total", source="computed")
        assert computed == totals.prompt_tokens - totals.cached_tokens
        model = next(s.labels["model"] for s in daemon.samples() if s.name == "palegreen_engine_requests_running")
        assert "SmolLM2" in model


@needs_engine
def test_a_killed_engine_is_gone_from_the_next_exposition_and_the_scrape_stays_whole() -> None:
    with (
        engine.LlamaServer().start() as server,
        Daemon("--engine", server.url, "--engine-interval", "500ms") as daemon,
    ):
        until(lambda: daemon.value("palegreen_engine_requests_running") is not None, 20)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: daemon.value("palegreen_engine_requests_running") is None, 3)
        assert daemon.get()[0] == 200
        assert daemon.value("palegreen_source_up", source="engine") == 0


def _children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")  # a child belongs to the thread that forked it
    found = {int(child) for task in tasks for child in task.read_text().split()}
    return found | {grandchild for child in found for grandchild in _children(child)}


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@needs_engine
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_shows_a_live_summary_and_stops_all_that_it_started(ending: signal.Signals) -> None:
    command = [PROGRAM, "demo", "--requests-per-second", "5"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if re.search(r"[1-9]\d* tokens", line):
            break
    assert any(re.match(r"metrics  http://127\.0\.0\.1:\d+/metrics", line) for line in lines), lines
    assert "sources" in lines[-1], lines
    started = _children(demo.pid)
    assert len(started) >= 2, "an engine and a daemon"
    demo.send_signal(ending)
    _, errors = demo.communicate(timeout=20)
    assert demo.returncode == 0, errors
    until(lambda: not any(_alive(pid) for pid in started), 5)


def test_the_demo_takes_any_engine_and_says_when_there_is_none(tmp_path: Path) -> None:
    script = (
        "import palegreen.demo.engine as e; e.available = lambda: 'no build for this platform'\n"
        "from palegreen.cli.main import main; main(['demo'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no build for this platform" in done.stderr
    assert "ENGINE=http" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_live_summary_counts_tokens_a_second_over_the_last_seconds() -> None:
    def tokens(total: float) -> Samples:
        return {"palegreen_engine_generation_tokens_total": [({"model": "m", "engine": "e"}, total)]}

    now = 0.0
    live = Live("http://unused", clock=lambda: now)
    lines = []
    for second in range(12):
        now = float(second)
        lines.append(
            live.line({"palegreen_engine_generation_tokens_total": [({"model": "m", "engine": "e"}, 30.0 * second)]})
        )
    assert "m:  30.0 tok/s, 330 tokens" in lines[-1]
    now = 12.0
    restarted = live.line(tokens(5.0))
    assert "-" not in restarted.split("tok/s")[0], "a restart is no negative rate"
