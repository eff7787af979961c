"""Where a signal becomes a cause: what `thresholds.yaml` declares, as typed records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

import yaml

Unit = Literal["ratio", "count", "seconds", "duration", "per_second"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """One threshold: the series `palegreen:threshold{name}` in Prometheus.

    Attributes:
        value: in base units.
        unit: `seconds` is a latency; `duration` is time that is waited, which `time_scale` divides.
        about: why it is that by default.
    """

    name: str
    value: float
    unit: Unit
    about: str


@cache
def thresholds() -> Mapping[str, Threshold]:
    """Every threshold by name, in the order of the file."""
    text = resources.files(__package__).joinpath("thresholds.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: Threshold(name, **entry) for name, entry in yaml.safe_load(text).items()})
