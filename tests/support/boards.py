"""What the committed dashboards ask: their panels, expressions and variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser

GENERATED = Path(__file__).parents[2] / "dashboards" / "generated"
BUILT_IN = {
    "__rate_interval": "1m",
    "__interval": "15s",
    "__range": "6h",
    "__range_s": "21600",
}


@dataclass(frozen=True)
class Asked:
    """One query of one panel."""

    board: str
    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def expr(self) -> str:
        return str(self.target["expr"])

    @property
    def name(self) -> str:
        return f"{self.board} {self.panel['id']} {self.panel['title']} {self.target['refId']}"


def boards() -> dict[str, dict[str, Any]]:
    """Every committed board by its uid."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GENERATED.glob("*.json"))}


def every_panel(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Panels and headings, those of collapsed rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels") or ()


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What draws something."""
    return (panel for panel in every_panel(board) if panel["type"] != "row")


def queries() -> list[Asked]:
    """Every query of every panel."""
    return [
        Asked(uid, panel, target)
        for uid, board in boards().items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def variables(board: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Its variables by name."""
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def filled(text: str, board: Mapping[str, Any], chosen: Mapping[str, str] | None = None) -> str:
    """An expression with its variables filled in: what is chosen, else what a variable is at first."""
    values = dict(BUILT_IN) | dict(chosen or {})
    for name, variable in variables(board).items():
        if variable["type"] == "query":
            values.setdefault(name, str(variable["allValue"]))
        elif variable["type"] == "custom":
            values.setdefault(name, str(variable["current"]["value"]))
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], text)


def metrics(expression: str) -> set[str]:
    """Names of the metrics that an expression selects. Raises ValueError if it cannot be read."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(str(node.name))
        for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (child := getattr(node, part, None)) is not None:
                walk(child)
        for argument in getattr(node, "args", None) or ():
            walk(argument)

    walk(promql_parser.parse(expression))
    return found
