"""Every alert fires when its cause holds, does not when it does not, and is resolved when it is over: by promtool."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from support.rules import promtool
from support.ruletests import entry, run

from palegreen.catalogue.causes import causes



class _Texts(yaml.SafeLoader):
    """Every value as it is written: to YAML, `0x30` is 48."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


ROOT = Path(__file__).parent.parent
RULES = ROOT / "alerts" / "generated" / "rules.yaml"
CASES: dict[str, list[dict[str, Any]]] = {
    name: cases
    for file in sorted((ROOT / "tests" / "rules").glob("*.yaml"))
    for name, cases in _Texts(file.read_text()).get_single_data().items()
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
    assert run(promtool(), RULES, [entry(case, causes()[name].alert) for case in CASES[name]], tmp_path) == ""
