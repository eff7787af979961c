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
from support.samples import REFUSED, scored
from support.waiting import until

from palegreen.demo import engine
from palegreen.demo.live import Live, Samples, scrape, total
from palegreen.demo.quality import Quality, summary
from palegreen.demo.traffic import Traffic
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.store.query import Filter, Reader
from palegreen.evaluators.store.store import Store

SCORED = r"quality  replica 1 [1-9]\d* scored"

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


def _said(demo: subprocess.Popen[str], pattern: str) -> list[str]:
    """What the demo prints up to the first line that matches."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"it ended without {pattern}: {lines}")


@needs_engine
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_shows_a_live_summary_and_stops_all_that_it_started(ending: signal.Signals) -> None:
    command = [PROGRAM, "demo", "--requests-per-second", "5"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = _said(demo, r"[1-9]\d* tokens")
    assert any(re.match(r"metrics  http://127\.0\.0\.1:\d+/metrics", line) for line in lines), lines
    assert "sources" in lines[-1], lines
    started = _children(demo.pid)
    assert len(started) >= 16, "three engines, a node daemon, three evaluators and the three processes of each"
    demo.send_signal(ending)
    _, errors = demo.communicate(timeout=40)
    assert demo.returncode == 0, errors
    until(lambda: not any(_alive(pid) for pid in started), 5)


def _scored(line: str) -> int:
    return int(line.split()[3])


@needs_engine
def test_traffic_goes_through_the_proxy_and_what_is_shown_of_it_is_what_the_evaluator_says() -> None:
    command = [PROGRAM, "demo", "--requests-per-second", "5", "--no-alerts"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        try:
            lines = _said(demo, SCORED)
            url = next(line.split()[1] for line in lines if line.startswith("quality  http"))
            first = _scored(lines[-1])
            between = scrape(url)
            lines += _said(demo, SCORED)
            assert first <= total(between, "palegreen_quality_samples_total", tap="proxy") <= _scored(lines[-1])
            assert any(re.match(r"1 (pass|fail)     \S.* -> \S", line) for line in lines), lines
            store = Path(next(line.split()[-1] for line in lines if line.startswith("samples ")))
            with Reader(store) as reader:
                assert reader.extent(Filter())[0] >= first
        finally:
            demo.send_signal(signal.SIGTERM)


@needs_engine
def test_a_run_of_a_few_seconds_says_how_good_the_answers_were() -> None:
    done = subprocess.run(
        [PROGRAM, "demo", "--seconds", "1", "--no-alerts"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^quality  replica 1 \d+ scored, \d+ passed, \d+ failed", done.stdout, re.MULTILINE), done.stdout


def test_the_summary_of_quality_names_what_fails_most_and_what_is_wrong_with_the_evaluator() -> None:
    def results(name: str, label: str, **values: float) -> Samples:
        return {name: [({"check": "truncated", label: key}, value) for key, value in values.items()]}

    checks = {"truncated": 4.0, "refusal": 1.0, "empty": 3.0, "error": 0.0, "language": 2.0}
    samples: Samples = {
        **results("palegreen_quality_samples_total", "result", **{"pass": 90, "fail": 10}),
        "palegreen_quality_checks_total": [({"check": c, "result": "fail"}, value) for c, value in checks.items()],
        "palegreen_evaluator_lag_seconds": [({}, 0.5)],
    }
    healthy = "100 scored, 90 passed, 10 failed (truncated 4, empty 3, language 2), 0.5 s behind"
    assert summary(samples) == healthy
    samples["palegreen_tap_dropped_total"] = [({"reason": "queue_full"}, 7.0)]
    samples["palegreen_evaluator_process_up"] = [({"process": "tap"}, 1.0), ({"process": "scorer"}, 0.0)]
    assert summary(samples) == f"{healthy}, 7 dropped, the scorer process is down"


def test_a_sample_that_is_shown_cannot_command_the_terminal_and_says_which_checks_failed_and_why(
    tmp_path: Path,
) -> None:
    sample = scored(
        response="\x1b[2Jno\nmore",
        messages=[{"role": "user", "content": "What\x1b[31m now?"}],
        outcomes={"refusal": REFUSED, "json": None},
    )
    store = Store(tmp_path / "samples.db", 60, 1 << 20)
    store.add([sample])
    quality = Quality("http://unused", tmp_path / "samples.db")
    odd = "\N{REPLACEMENT CHARACTER}"
    line = f"fail     What{odd}[31m now? -> {odd}[2Jno more  [refusal: says that it cannot help]"
    assert quality.samples() == [line]
    assert quality.samples() == [], "each is shown once"
    store.close()


def test_an_error_that_is_kept_without_what_was_asked_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path / "samples.db", 60, 1 << 20)
    store.add([scored(response="", messages=None, outcomes={"error": Outcome(False, 0, "status 502")})])
    assert Quality("http://unused", tmp_path / "samples.db").samples() == ["fail      ->   [error: status 502]"]
    store.close()


def test_without_the_evaluators_packages_the_demo_says_in_a_line_what_to_install() -> None:
    script = (
        "from importlib import metadata; found = metadata.distributions\n"
        "metadata.distributions = lambda **which: [] if which.get('name') == 'orjson' else found(**which)\n"
        "from palegreen.cli.main import main; main(['demo'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "palegreen: the evaluator needs orjson; run: pip install 'palegreen[evaluators]'\n"


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
