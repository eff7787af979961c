"""`docs/metrics.md`, generated from the catalogue: `python -m palegreen.catalogue.docs > docs/metrics.md`."""

from __future__ import annotations

import sys

from palegreen.catalogue.engines import engines
from palegreen.catalogue.metrics import Group, groups, metrics

_INTRO = """\
# Metrics

Generated from `catalogue/metrics.yaml` and `catalogue/engine-mappings/`; do not edit (`make docs`).

Absent beats stale, stale beats wrong, and zero is a measurement: what cannot be read is not shown.
Units are base units. *Owner* is who is paged for it: the platform team or the model's team.
"""

_SUPPORT = """\

## What each engine gives

`n` native, `d` derived from other metrics of the engine, `p` a proxy near what is meant, empty: absent, at best of
what the engine can publish in the versions known. On a live engine `palegreen_engine_metric_supported` is the truth.
"""


def render() -> str:
    """The whole page as Markdown."""
    return _INTRO + "".join(_table(group) for group in groups()) + _support()


def _table(group: Group) -> str:
    shared = set.intersection(*(set(metric.labels) for metric in group.metrics))
    common = [label for label in group.metrics[0].labels if label in shared]
    lines = [f"\n## {group.title}\n", group.about.strip()]
    if common:
        lines.append("\nLabels on each: " + ", ".join(f"`{label}`" for label in common) + ".")
    lines += ["\n| metric | kind | more labels | meaning | owner |", "|---|---|---|---|---|"]
    for metric in group.metrics:
        own = ", ".join(f"`{label}`" for label in metric.labels if label not in common)
        lines.append(f"| `{metric.name}` | {metric.kind} | {own} | {metric.help} | {metric.owner} |")
    return "\n".join(lines) + "\n"


def _support() -> str:
    known = engines()
    lines = [_SUPPORT, "| metric | " + " | ".join(engine.title for engine in known) + " |"]
    lines.append("|---" * (len(known) + 1) + "|")
    for metric in metrics().values():
        if metric.canonical:
            cells = (engine.best_quality(metric.name)[:1] for engine in known)
            short = metric.name.removeprefix("palegreen_engine_")
            lines.append(f"| `{short}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
