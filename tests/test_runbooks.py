"""Each alert has a runbook, each runbook an alert; its queries parse and ask for what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.rules import rules
from palegreen.alerts.rules.alerting import WATCHDOG
from palegreen.catalogue.causes import causes
from palegreen.catalogue.metrics import metrics

FOLDER = Path(__file__).parent.parent / "docs" / "runbooks"
CAUSES = {cause.alert: cause for cause in causes().values()}
ALERTS = [*CAUSES, WATCHDOG]
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "How it can be wrong"]
OF_OTHERS = re.compile(r"up|ALERTS|process_\w+|prometheus_\w+|alertmanager_\w+")
RECORDED = {rule["record"] for group in rules()["groups"] for rule in group["rules"] if "record" in rule} | {
    "palegreen:model_declared"  # recorded where models are declared
}
EXPOSED = {
    name + suffix
    for name, metric in metrics().items()
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}


def text_of(alert: str) -> str:
    return (FOLDER / f"{alert}.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks, those in lists too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [block.strip() for _, block in found]


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a parsed query."""
    found: list[Any] = []

    def visit(each: Any) -> bool:
        if isinstance(each, promql_parser.VectorSelector):
            found.append(each)
        return True

    promql_parser.walk(node, visit)
    yield from found


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert {file.stem for file in FOLDER.glob("*.md")} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_has_its_sections_in_order(alert: str) -> None:
    text = text_of(alert)
    head, *_ = text.split("\n## ")
    title, said = (line for line in head.splitlines() if line)
    assert title == f"# {alert}"
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip().count("\n") for part in text.split("\n## ")[1:])
    cause = CAUSES.get(alert)
    severity, owner = ("none", "platform") if cause is None else (cause.severity, cause.owner)
    for word in (owner,) if severity == "objective" else (severity, owner):
        assert re.search(rf"\b{word}\b", said, re.IGNORECASE), f"{word}: {said}"


@pytest.mark.parametrize("alert", ALERTS)
def test_the_queries_of_a_runbook_parse_and_ask_for_what_there_is(alert: str) -> None:
    asked = blocks(text_of(alert), "promql")
    assert asked
    for query in asked:
        for selector in selectors(promql_parser.parse(query)):
            name = selector.name
            assert name, f"{query}: a selector without a name"
            assert name in RECORDED or name in EXPOSED or OF_OTHERS.fullmatch(name), f"{name} in {query}"


def test_the_annotation_leads_to_the_runbook() -> None:
    config = AlertsConfig()
    for group in rules(config)["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")


def test_thresholds_that_a_runbook_sets_exist() -> None:
    for alert in ALERTS:
        file = FOLDER / f"{alert}.md"
        if not file.exists():
            continue
        for entry in re.findall(r"`(thresholds: \{[^`]*\})`", file.read_text(encoding="utf-8")):
            rules(AlertsConfig.model_validate(yaml.safe_load(entry)))
        for entry in re.findall(r"`(disabled: \[[^`]*\])`", file.read_text(encoding="utf-8")):
            rules(AlertsConfig.model_validate(yaml.safe_load(entry)))
