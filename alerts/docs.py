"""Pages of `docs/` that the catalogue says: `python -m palegreen.alerts.docs alerts|thresholds > docs/...`.

`alerts` is docs/alerts-list.md, `thresholds` docs/thresholds.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping

from palegreen.alerts.rules import rules
from palegreen.alerts.rules.alerting import WATCHDOG
from palegreen.catalogue.causes import VERDICTS, Cause, causes
from palegreen.catalogue.thresholds import Threshold, thresholds

_ALERTS = """\
# All alerts

Generated from `catalogue/causes/`; do not edit (`python -m palegreen.alerts.docs alerts`). [alerts.md](alerts.md)
explains the columns.
"""
_THRESHOLDS = """\
# Thresholds

Generated from `catalogue/thresholds.yaml`; do not edit (`python -m palegreen.alerts.docs thresholds`).
[alerts.md](alerts.md#other-thresholds) says how to change them. In Prometheus each is `palegreen:threshold{name}`, in
base units: a ratio of 0.95 is 95%.

| name | default | decides on | why |
|---|---|---|---|
"""
_MEANT = {
    "slow": "users wait, or are not served.",
    "weird": "answers are wrong, or other than they were.",
    "expensive": "money is spent on nothing.",
    "blind": "something that Palegreen must see is not seen.",
}
_ABOUT = {
    "replica": "replica",
    "container": "replica",
    "gpu": "GPU",
    "node": "node",
    "model": "model",
    "cluster": "cluster",
}
_THRESHOLD = re.compile(r'palegreen:threshold\{name="(\w+)"\}')
_RECORDED = re.compile(r"palegreen:\w+(?::\w+)?")
# What every cause is recorded as: not what a cause rests on.
_COMMON = {"palegreen:threshold", "palegreen:cause_found", "palegreen:cause_active"}


def alerts() -> str:
    """docs/alerts-list.md."""
    known = tuple(causes().values())
    text = _ALERTS
    for verdict in VERDICTS:
        text += f"\n## {verdict.capitalize()}: {_MEANT[verdict]}\n\n{_head()}"
        text += "".join(_alert(cause) for cause in known if cause.verdict == verdict)
    watchdog = f"| [{WATCHDOG}](runbooks/{WATCHDOG}.md) | none | platform | | watchdog | 0m | | always fires |\n"
    return f"{text}\n## Always\n\n{_head()}{watchdog}"


def threshold_table() -> str:
    """docs/thresholds.md."""
    used = deciding()
    rows = (
        f"| `{each.name}` | {_value(each)} | {', '.join(used.get(each.name, ())) or 'dashboards'} | {each.about} |\n"
        for each in thresholds().values()
    )
    return _THRESHOLDS + "".join(rows)


def deciding() -> Mapping[str, tuple[str, ...]]:
    """Causes by the thresholds that their rules rest on, also by way of other recorded series."""
    recorded: dict[str, list[str]] = {}
    of_cause: dict[str, list[str]] = {}
    for group in rules()["groups"]:
        for rule in group["rules"]:
            if "record" not in rule:
                continue
            cause = rule.get("labels", {}).get("cause")
            if cause is not None:
                of_cause.setdefault(cause, []).append(rule["expr"])
            else:
                recorded.setdefault(rule["record"], []).append(rule["expr"])
    found: dict[str, list[str]] = {}
    for cause in causes():
        for name in dict.fromkeys(_rests_on(of_cause.get(cause, []), recorded, set())):
            found.setdefault(name, []).append(cause)
    return {name: tuple(names) for name, names in found.items()}


def _rests_on(expressions: list[str], recorded: Mapping[str, list[str]], seen: set[str]) -> Iterator[str]:
    for expression in expressions:
        yield from _THRESHOLD.findall(expression)
        for series in _RECORDED.findall(expression):
            if series not in seen and series not in _COMMON:
                seen.add(series)
                yield from _rests_on(recorded.get(series, []), recorded, seen)


def _head() -> str:
    return "| alert | severity | owner | about a | cause | for | explains | what |\n|---|---|---|---|---|---|---|---|\n"


def _alert(cause: Cause) -> str:
    objective = cause.severity == "objective"
    cells = (
        f"[{cause.alert}](runbooks/{cause.alert}.md)",
        "critical or warning" if objective else cause.severity,
        "platform or model" if objective else cause.owner,
        _ABOUT[cause.scope],
        cause.name,
        cause.wait,
        ", ".join(cause.explains),
        cause.summary,
    )
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |")


def _value(threshold: Threshold) -> str:
    """A default as a person reads it."""
    if threshold.unit == "duration":
        for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
            if threshold.value >= unit and threshold.value % unit == 0:
                return f"{threshold.value / unit:g} {name} ({threshold.value:.0f})"
    return f"{threshold.value:g}" + {"per_second": " a second", "seconds": " s", "duration": " s"}.get(
        threshold.unit, ""
    )


_PAGES = {"alerts": alerts, "thresholds": threshold_table}


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in _PAGES:
        sys.exit(f"usage: python -m palegreen.alerts.docs {'|'.join(_PAGES)}")
    sys.stdout.write(_PAGES[sys.argv[1]]())


if __name__ == "__main__":
    main()
