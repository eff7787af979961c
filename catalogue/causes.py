"""What can be wrong, once: what the files of `causes/` declare, as typed records.

Each file holds the causes of one verdict: slow, weird, expensive, blind. A cause has

- `owner`: who is to act, platform or model; `severity`: critical (somebody is woken), warning (a ticket), info, or
  objective (an error budget burns: critical or warning by how fast);
- `scope`: what `expr` is about. `replica` (the default), `model`, `container` (namespace and pod: found on the replicas
  of that pod), `gpu` (found on the replicas that use it), `node` (a daemon), `cluster`;
- `expr`: PromQL that has a series wherever the cause holds. `$R` stands for the labels of a replica, `$name` for the
  threshold of that name, as a number;
- `for`: how long before anybody is told; `explains`: causes that it brings about, for which nobody is told then;
- `summary`, `why` and `next`: what a person reads. `{name}` in `why` is one of `numbers`, a query whose `$instance`,
  `$pod`, `$uuid`, `$node`, `$daemon`, `$model`, `$objective` or `$size` selects what the alert is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

import yaml

Verdict = Literal["slow", "weird", "expensive", "blind"]
Scope = Literal["replica", "model", "container", "gpu", "node", "cluster"]
VERDICTS: tuple[Verdict, ...] = ("slow", "weird", "expensive", "blind")


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text: how it is written (percent, number, duration, or `label NAME`: that label), and its query."""

    form: str
    query: str


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. `expr` is empty for objectives, whose rules are those of burn rates."""

    name: str
    verdict: Verdict
    owner: Literal["platform", "model"]
    severity: Literal["critical", "warning", "info", "objective"]
    scope: Scope
    wait: str
    summary: str
    why: str
    next: str
    explains: tuple[str, ...]
    expr: str = ""
    numbers: Mapping[str, Number] = field(default_factory=dict)

    @property
    def alert(self) -> str:
        """Name of its alert: kv_thrash is PalegreenKvThrash, latency_objective PalegreenLatencyBudgetBurn."""
        name = "".join(word.capitalize() for word in self.name.split("_"))
        return "Palegreen" + (name.replace("Objective", "BudgetBurn") if self.severity == "objective" else name)


@cache
def causes() -> Mapping[str, Cause]:
    """Every cause by name, in the order of the files."""
    folder = resources.files(__package__).joinpath("causes")
    return MappingProxyType(
        {
            name: _cause(name, verdict, entry)
            for verdict in VERDICTS
            for name, entry in yaml.safe_load(folder.joinpath(f"{verdict}.yaml").read_text(encoding="utf-8")).items()
        }
    )


def _cause(name: str, verdict: Verdict, entry: dict[str, Any]) -> Cause:
    numbers = {key: Number(form, query) for key, (form, query) in entry.get("numbers", {}).items()}
    return Cause(
        name=name,
        verdict=verdict,
        owner=entry["owner"],
        severity=entry["severity"],
        scope=entry.get("scope", "replica"),
        wait=entry["for"],
        summary=entry["summary"],
        why=entry["why"],
        next=entry["next"],
        explains=tuple(entry["explains"]),
        expr=entry.get("expr", ""),
        numbers=MappingProxyType(numbers),
    )
