"""Pages about alerts that are generated: they are what the catalogue says, and name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from palegreen.alerts import docs
from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.rules import rules
from palegreen.catalogue.causes import causes
from palegreen.catalogue.thresholds import thresholds
from palegreen.runtime.yamlfile import load

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("page", "made"), [("alerts-list.md", docs.alerts), ("thresholds.md", docs.threshold_table)])
def test_the_pages_are_what_the_catalogue_says(page: str, made: object) -> None:
    assert callable(made)
    assert (DOCS / page).read_text(encoding="utf-8") == made()


def test_every_alert_is_listed_once() -> None:
    listed = re.findall(r"^\| \[(\w+)\]", docs.alerts(), re.MULTILINE)
    assert sorted(listed) == sorted([*(cause.alert for cause in causes().values()), "PalegreenWatchdog"])


def test_thresholds_name_the_causes_that_they_decide_on_directly_and_by_way_of_signals() -> None:
    deciding = docs.deciding()
    assert "kv_thrash" in deciding["kv_usage"]
    assert {"failing_check", "retrieval_empty"} <= set(deciding["check_fail"])
    assert {"latency_objective", "availability_objective", "quality_objective"} <= set(deciding["slo_least_events"])
    assert "queue_calm" not in deciding["check_fail"]
    assert set(deciding) <= set(thresholds())


def test_a_page_that_there_is_not_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "palegreen.alerts.docs", "causes"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "usage: python -m palegreen.alerts.docs alerts|thresholds\n")


def test_the_configuration_in_the_documentation_is_accepted(tmp_path: Path) -> None:
    text = (DOCS / "alerts.md").read_text(encoding="utf-8")
    examples = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "alerts.yaml" in block]
    assert examples
    for example in examples:
        file = tmp_path / "alerts.yaml"
        file.write_text(example, encoding="utf-8")
        try:
            assert rules(load(file, AlertsConfig))["groups"]
        except ValidationError as refused:
            pytest.fail(str(refused))


def test_what_the_documentation_names_is_there() -> None:
    text = (DOCS / "alerts.md").read_text(encoding="utf-8")
    recorded = {rule["record"] for group in rules()["groups"] for rule in group["rules"] if "record" in rule}
    for series in set(re.findall(r"palegreen:\w+(?::\w+)?", text)):
        assert series in recorded, series
    for link in re.findall(r"\]\(([\w/.-]+\.md)", text):
        assert (DOCS / link).is_file() or link in {"routing.md"}, link
