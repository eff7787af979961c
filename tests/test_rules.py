"""Every alert fires when its cause holds, does not when it does not, and is resolved when it is over: by promtool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.ruletests import entry, read_by, run

from palegreen.catalogue.causes import causes


def _texts(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The cases of a file, every value as it is written: to YAML, `0x30` is 48."""
    loader = yaml.SafeLoader(file.read_text())
    loader.yaml_implicit_resolvers = {}
    cases: dict[str, list[dict[str, Any]]] = loader.get_single_data()
    return cases


ROOT = Path(__file__).parent.parent
CASES: dict[str, list[dict[str, Any]]] = {
    name: cases for file in sorted((ROOT / "tests" / "rules").glob("*.yaml")) for name, cases in _texts(file).items()
}


def test_every_cause_has_a_firing_a_silent_and_a_resolved_case() -> None:
    assert set(CASES) == set(causes())
    for name, cases in CASES.items():
        assert any("fires" in case and "resolved" in case for case in cases), name
        assert any("silent" in case and case["why"] for case in cases), name
        for case in cases:
            if "fires" in case:
                cause = causes()[name]
                assert {"owner", "severity"} <= set(case["who"]), name
                assert cause.severity in (case["who"]["severity"], "objective"), name


@pytest.mark.parametrize("name", CASES)
def test_the_alert_is_as_its_cases_say(name: str, tmp_path: Path) -> None:
    cases = [entry(case, causes()[name].alert) for case in CASES[name]]
    assert run(cases, tmp_path, read_by(name)) == ""
