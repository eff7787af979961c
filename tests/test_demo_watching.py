"""The loop closed: a real Prometheus with the generated rules, a real Alertmanager with the generated routes, pages."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from support.alertmanager import amtool
from support.daemon import PROGRAM, environment
from support.tools import program
from support.waiting import until

from palegreen.alerts.build import build
from palegreen.alerts.config import OWNERS
from palegreen.demo import engine, tools
from palegreen.demo.ending import ending
from palegreen.demo.live import scrape
from palegreen.demo.started import Started
from palegreen.demo.watching import configuration, missing, scraping, watch

needs_engine = pytest.mark.skipif(engine.available() is not None, reason=str(engine.available()))


def test_the_demos_configuration_tells_every_owner_by_the_webhook_and_minutes_stand_for_hours(tmp_path: Path) -> None:
    config = configuration("http://127.0.0.1:9")
    assert config.time_scale > 1
    assert config.watchdog.webhook is None
    for owner in OWNERS:
        for severity in ("critical", "warning"):
            (channel,) = getattr(config.receivers[owner], severity)
            assert channel.webhook.url == f"http://127.0.0.1:9/{severity}"
    for name, content in build(config).items():
        (tmp_path / name).write_bytes(content)
    checked = amtool("check-config", tmp_path / "alertmanager.yaml")
    assert checked.returncode == 0, checked.stderr
    rules = subprocess.run(
        [program("promtool"), "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert rules.returncode == 0, rules.stderr


def test_prometheus_scrapes_the_daemons_each_second_with_their_node_and_keeps_their_labels(tmp_path: Path) -> None:
    written = scraping(["127.0.0.1:9450", "127.0.0.1:9451"], "127.0.0.1:9093")
    (job,) = written["scrape_configs"]
    assert job["honor_labels"]
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:9450", "127.0.0.1:9451"]
    assert job["static_configs"][0]["labels"].keys() == {"node"}
    (tmp_path / "rules.yaml").write_text("groups: []")
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(written))
    checked = subprocess.run(
        [program("promtool"), "check", "config", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_both_run_with_the_generated_files_and_end_with_the_demo(tmp_path: Path) -> None:
    program("prometheus")
    program("alertmanager")
    with ending() as asked, Started(tmp_path, asked) as started:
        urls = watch(started, ["127.0.0.1:9"], "http://127.0.0.1:9")

        def watchdog() -> bool:
            with urllib.request.urlopen(f"{urls.alertmanager}/api/v2/alerts", timeout=10) as response:
                return any(alert["labels"]["alertname"] == "PalegreenWatchdog" for alert in json.load(response))

        until(watchdog, 60)
        scraped = scrape(f"{urls.prometheus}/metrics")
        assert {
            labels["rule_group"] for labels, failed in scraped["prometheus_rule_evaluation_failures_total"] if failed
        } == set()
    with pytest.raises(OSError, match="refused"):
        scrape(f"{urls.prometheus}/metrics")


def test_without_prometheus_the_demo_says_so_in_a_line_and_a_script_says_that_it_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {name: tools.Tool(name, None, f"no {name} here") for name in tools.TOOLS}
    monkeypatch.setattr(tools, "find", lambda name, **_: absent[name])
    assert missing(lambda _: None) == "prometheus: no prometheus here; alertmanager: no alertmanager here"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--script", "rust"], "'rust'; allowed: all, or some of gpu-lost, other-weights"),
        (["--script", "queue", "--no-alerts"], "a script needs Prometheus and"),
    ],
)
def test_a_script_that_cannot_be_played_is_refused_in_a_line(arguments: list[str], said: str) -> None:
    done = subprocess.run([PROGRAM, "demo", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@needs_engine
def test_a_fault_ends_in_one_page_to_its_owner_that_names_replica_and_cause_and_in_its_end(tmp_path: Path) -> None:
    tool = str(program("prometheus").parent)
    own = environment({"TMPDIR": str(tmp_path)})
    own["PATH"] = f"{tool}:{own['PATH']}"
    said = tmp_path / "stdout"
    with said.open("w") as output:
        demo = subprocess.Popen([PROGRAM, "demo"], env=own, stdout=output, stderr=subprocess.STDOUT)

    def lines(pattern: str) -> list[str]:
        return re.findall(pattern, said.read_text(), re.MULTILINE)

    try:
        until(lambda: lines("^quality  replica 3") or demo.poll() is not None, 120)
        assert lines("^rules +http://127.0.0.1:"), said.read_text()
        told = subprocess.run(
            [PROGRAM, "demo", "fault", "engine-killed", "--replica", "2"],
            env=own, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        until(lambda: lines("^PAGE|^TICKET"), 120)
        mended = subprocess.run(
            [PROGRAM, "demo", "fault", "none"], env=own, capture_output=True, text=True, timeout=100, check=False
        )
        assert mended.returncode == 0, mended.stderr
        until(lambda: lines("^RESOLVED to platform"), 120)
        pages = lines("^PAGE .*$")
        assert len(pages) == 1, said.read_text()
        assert re.match(r"PAGE +to platform: .*: the engine is down \[engine_dead, replica 2\]", pages[0])
    finally:
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 0, sys.exc_info()
