"""What an XID error of the NVIDIA driver calls for, by its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

import yaml

XidClass = Literal["application", "hardware", "needs_reset", "driver", "unknown"]


@dataclass(frozen=True, slots=True)
class Xid:
    """One code: its class, and its name in a few words."""

    code: int
    cls: XidClass
    name: str


@cache
def xids() -> Mapping[int, Xid]:
    """Every code that is known."""
    text = resources.files(__package__).joinpath("xids.yaml").read_text(encoding="utf-8")
    return MappingProxyType({c: Xid(c, entry["class"], entry["name"]) for c, entry in yaml.safe_load(text).items()})


def xid(code: int) -> Xid:
    """The code, of class unknown where the catalogue does not have it."""
    return xids().get(code) or Xid(code, "unknown", "")
