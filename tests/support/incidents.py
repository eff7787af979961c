"""Incidents as data (tests/incidents.yaml): what metrics show minute by minute, and who is to be told what.

Each incident lives in a namespace of its own name: `$A` is a replica as its node's daemon shows it, `$QA` as its
evaluator does, `$P` its serving process, `$N` its node, `$G1` a GPU whose uuid `gpus` gives. `page` has the cause,
owner and severity of the one message that is sent (with `$a` for the replica's instance_id); `tickets` are causes that
may be told as warnings beside it. `peers` makes a fleet instead, of which `odd` answers otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from support.peers import Replica, recorded
from support.ruletests import expanded

MINUTES = 160
LIVE = 70
"""Minutes of history, after which what is shown is scraped."""
FILE = Path(__file__).parent.parent / "incidents.yaml"
_VALUE = re.compile(r"(_|stale|[-+.\de]+?)(?:([+-][.\de]+))?(?:x(\d+))?")
_PEERS_SINCE = 40


@dataclass(frozen=True)
class Incident:
    """One of them. `series` are values by minute, None where there is none."""

    name: str
    story: str
    series: Mapping[str, list[float | None]]
    page: Mapping[str, str]
    tickets: tuple[str, ...]

    def inputs(self) -> list[dict[str, str]]:
        """The series as promtool takes them."""
        return [
            {"series": name, "values": " ".join("_" if value is None else repr(value) for value in values)}
            for name, values in self.series.items()
        ]

    def mine(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is of this incident."""
        return self.name in (labels.get("namespace"), labels.get("node"), labels.get("model_size"))


def incidents() -> list[Incident]:
    """All of them, in the order of the file."""
    return [_incident(entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8"))]


def page(shown: list[Incident], minute: int) -> Iterator[str]:
    """What all of them show in that minute, line by line."""
    for incident in shown:
        for name, values in incident.series.items():
            value = values[min(minute, MINUTES - 1)]
            if value is not None:
                yield f"{name} {value!r}"


def _incident(entry: dict[str, Any]) -> Incident:
    name = entry["name"]
    series = {
        _expanded(key, name, entry.get("gpus", {})): _values(values) for key, values in entry.get("series", {}).items()
    }
    if "peers" in entry:
        series |= _peers(name, **entry["peers"])
    wanted = {
        key: re.sub(r"\$([a-h])$", rf"{name}/\1", value).replace("$name", name) for key, value in entry["page"].items()
    }
    return Incident(name, entry["story"], series, wanted, tuple(entry.get("tickets", ())))


def _expanded(key: str, name: str, gpus: Mapping[str, str]) -> str:
    def labels(found: re.Match[str]) -> str:
        which = found[1]
        node = f'node="{name}",instance="{name}:9450"'
        if which in gpus:
            return f'uuid="{gpus[which]}",gpu="0",mig="",{node}'
        if which == "N":
            return node
        pod = which[-1].lower() if which != "P" else "a"
        if which == "P":
            return f'namespace="{name}",pod="a",container="engine",pid="7",{node}'
        replica = f'model="llama",endpoint="chat",instance_id="{name}/{pod}",namespace="{name}",pod="{pod}"'
        if which.startswith("Q"):
            return f'{replica},node="{name}",instance="{name}-{pod}:9451"'
        return f'{replica},engine="vllm",{node}'

    return expanded(re.sub(r"\$(\w+)", labels, key))


def _values(text: str) -> list[float | None]:
    """Numbers of promtool's notation: `a+bxn` is n + 1 of them, each b more, as `axn` is n + 1 times a."""
    found: list[float | None] = []
    for part in text.split():
        match = _VALUE.fullmatch(part)
        assert match is not None, part
        times = int(match[3] or 0) + (match[1] != "_" or match[3] is None)
        if match[1] in ("_", "stale"):
            found += [None] * max(1, times)
            continue
        step = float(match[2] or 0)
        found += [float(match[1]) + step * at for at in range(times)]
    return (found + [None] * MINUTES)[:MINUTES] if found[-1] is None else (found + [found[-1]] * MINUTES)[:MINUTES]


def _peers(name: str, replicas: int, odd: int) -> dict[str, list[float | None]]:
    shift = np.full(32, 0.6)
    fleet = [
        Replica(name, "abcdefgh"[at], shift=shift if at == odd else np.zeros(32), since=_PEERS_SINCE)
        for at in range(replicas)
    ]
    series: dict[str, list[float | None]] = {}
    for given in recorded(fleet, MINUTES, seed=6).input_series():
        own = re.sub(rf'"ns/{name}-(\w)"', rf'"{name}/\1"', given["series"]).replace('="ns"', f'="{name}"')
        series[own] = [None if value == "_" else float(value) for value in given["values"].split()]
    return series
