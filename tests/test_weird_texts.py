"""What a person reads of a weird replica, as Prometheus writes it: numbers that are known stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from support.ruletests import expanded, read_by, run

from palegreen.catalogue.causes import causes

ROOT = Path(__file__).parent.parent
CASES = yaml.safe_load((ROOT / "tests" / "rules" / "weird.yaml").read_text(encoding="utf-8"))
# Cause, the beginning of the case's reason, and what must be read.
TEXTS = (
    ("failing_check", "answers are cut", r"Check: truncated\. Of the answers .* \d\d(\.\d+)?% fail it; usual: 5%"),
    ("corruption_under_pressure", "the same, with", r"is 99% full, 0 requests .* 13% .* \(json_valid\)"),
    ("failing_canary", "two of five", r"In half an hour 2\d canaries failed and \d\d passed"),
    ("served_model_mismatch", "a gateway", r"In half an hour 2\d sampled answers \(1\d(\.\d+)?%\) named another"),
    ("recall_drop", "the index was", r"Recall is 55%, with 71%"),
    ("retrieval_empty", "sampled answers", r"without a context: \d\d(\.\d+)?% of sampled answers"),
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What promtool says it got, where nothing is expected."""
    tests = []
    for name, why, _ in TEXTS:
        (case,) = [case for case in CASES[name] if case["why"].startswith(why)]
        series = [{"series": expanded(of), "values": values} for of, values in case["series"].items()]
        asked = {"eval_time": case["fires"], "alertname": causes()[name].alert, "exp_alerts": []}
        tests.append({"name": name, "interval": "1m", "input_series": series, "alert_rule_test": [asked]})
    return run(tests, tmp_path_factory.mktemp("texts"), read_by(*[name for name, _, _ in TEXTS]))


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, _, text in TEXTS])
def test_the_numbers_of_a_cause_are_in_its_text(told: str, name: str, text: str) -> None:
    (part,) = [part for part in told.split("alertname: ") if part.startswith(causes()[name].alert)]
    assert re.search(text, part), part
    assert not re.search(r"<no value>|%!|NaN|<error", part)
