"""DCGM's fields: the schema of `dcgm-fields.yaml` and its loader. docs/dcgm.md explains how to extend the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

import pydantic
import yaml
from pydantic import model_validator

from palegreen.catalogue.engines import Strict
from palegreen.catalogue.metrics import metrics

Kind = Literal["gauge", "counter", "rate", "share", "code"]
_PUBLISHED_AS: Mapping[Kind, str] = {"gauge": "gauge", "counter": "counter", "rate": "gauge", "share": "counter"}
WHOLE = ":whole"  # ends the name of a field whose number has no decimal point, where that tells its unit


class Spelling(Strict):
    """Units of a name that stands for different ones, by whether its number is written with a decimal point."""

    whole: str
    decimal: str


class Blanks(Strict):
    """Numbers that mean that there is none: those listed, and all above `from`."""

    numbers: frozenset[float]
    above: float

    @model_validator(mode="before")
    @classmethod
    def _from(cls, data: dict[str, object]) -> dict[str, object]:
        return {"numbers": data["numbers"], "above": data["from"]}

    def __contains__(self, number: object) -> bool:
        return isinstance(number, float) and (number in self.numbers or abs(number) >= self.above)


class Field(Strict):
    """One thing DCGM tells; the file itself says what the keys mean."""

    kind: Kind
    scope: Literal["gpu", "instance"]
    metric: str = ""
    labels: tuple[str, ...] = ()
    zero: Literal["", "absent"] = ""
    names: dict[str, str | Spelling]
    renamed: dict[str, str | Spelling] = pydantic.Field(default_factory=dict)
    base: dict[str, str | Spelling] = pydantic.Field(default_factory=dict)

    @model_validator(mode="after")
    def _declared(self) -> Field:
        if not self.metric:
            return self
        metric = metrics().get(self.metric)
        if metric is None:
            raise ValueError(f"{self.metric} is not declared in catalogue/metrics.yaml")
        if metric.kind != _PUBLISHED_AS.get(self.kind):
            raise ValueError(f"{self.metric} is a {metric.kind}; a {self.kind} cannot be published as one")
        if len(metric.labels) != 3 + len(self.labels):
            raise ValueError(f"{self.metric} has labels {metric.labels}; after uuid, gpu and mig come {self.labels}")
        return self

    @property
    def below_zero(self) -> bool:
        """Whether a negative number can be one."""
        return "celsius" in self.names.values()

    @property
    def ratio(self) -> bool:
        """Whether numbers outside 0 to 1 are impossible."""
        units = [unit.decimal if isinstance(unit, Spelling) else unit for unit in self.names.values()]
        return all(unit in ("ratio", "percent") for unit in units)


@dataclass(frozen=True, slots=True)
class Native:
    """What one of DCGM's names stands for: the field, the factor to base units, and since when."""

    field: str
    factor: float
    since: Literal["", "4.6", "4.7"]

    def in_base_units(self, number: float) -> float:
        """The number in the field's own unit; divided where that is exact and a multiplication is not."""
        return number * self.factor if self.factor >= 1 else number / round(1 / self.factor)


class Fields(Strict):
    """The whole file."""

    units: dict[str, float]
    blanks: Blanks
    labels: dict[str, tuple[str, ...]]
    workload: tuple[str, ...]
    fields: dict[str, Field]

    @property
    def natives(self) -> Mapping[str, Native]:
        """Every name of DCGM's, and those with WHOLE, in the order of preference within a field.

        Raises KeyError for a unit that `units` lacks.
        """
        found: dict[str, Native] = {}
        for key, field in self.fields.items():
            generations: tuple[tuple[Literal["", "4.6", "4.7"], dict[str, str | Spelling]], ...]
            generations = ("", field.names), ("4.6", field.renamed), ("4.7", field.base)
            for since, names in generations:
                for name, unit in names.items():
                    if isinstance(unit, Spelling):
                        found[name + WHOLE] = Native(key, self.units[unit.whole], since)
                    decimal = unit.decimal if isinstance(unit, Spelling) else unit
                    found[name] = Native(key, self.units[decimal], since)
        return MappingProxyType(found)


@cache
def fields() -> Fields:
    """The fields that come with Palegreen."""
    text = resources.files(__package__).joinpath("dcgm-fields.yaml").read_text(encoding="utf-8")
    return Fields.model_validate(yaml.safe_load(text))
