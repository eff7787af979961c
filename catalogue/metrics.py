"""The metric catalogue: what `metrics.yaml` declares, as typed records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

import yaml

Kind = Literal["gauge", "counter", "histogram", "info", "stateset"]
Owner = Literal["platform", "model"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric family.

    `canonical` marks the engine-independent set, whose absence an engine must be reported for.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    unit: str
    owner: Owner
    group: str
    canonical: bool = False

    @property
    def exposed_type(self) -> str:
        """Type on the wire: text 0.0.4 knows neither info nor stateset, so both are gauges."""
        return self.kind if self.kind in ("counter", "histogram") else "gauge"


@dataclass(frozen=True, slots=True)
class Group:
    """A set of metrics that share labels and a heading in the documentation."""

    key: str
    title: str
    about: str
    metrics: tuple[Metric, ...]


@cache
def groups() -> tuple[Group, ...]:
    """Every group in the order of the file."""
    text = resources.files(__package__).joinpath("metrics.yaml").read_text(encoding="utf-8")
    return tuple(_group(key, body) for key, body in yaml.safe_load(text).items())


@cache
def metrics() -> Mapping[str, Metric]:
    """Every metric by name, in the order of the file."""
    return MappingProxyType({metric.name: metric for group in groups() for metric in group.metrics})


def _group(key: str, body: dict[str, Any]) -> Group:
    declared = tuple(
        Metric(
            name=name,
            kind=entry["kind"],
            help=entry["help"],
            labels=(*body["labels"], *entry.get("labels", ())),
            unit=entry.get("unit", ""),
            owner=body["owner"],
            group=key,
            canonical=entry.get("canonical", False),
        )
        for name, entry in body["metrics"].items()
    )
    return Group(key=key, title=body["title"], about=body["about"], metrics=declared)
