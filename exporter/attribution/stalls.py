"""How a cgroup waits: pressure (PSI) and CPU throttling, from the files the kernel keeps for it.

Pressure is version 2 alone (`Documentation/accounting/psi.rst`), throttling is `cpu.stat` of either
(`admin-guide/cgroup-v2.rst`, `scheduler/sched-bwc.rst`: microseconds in version 2, nanoseconds in version 1). Anybody
may read them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from palegreen.exporter.attribution.cgroup import Cgroup
from palegreen.exporter.kernelfile import content

_RESOURCES = ("cpu", "memory", "io")
_PARENTS = ("", "kubepods/", "kubepods/burstable/", "kubepods/besteffort/", "system.slice/", "docker/")


@dataclass(frozen=True, slots=True)
class Throttling:
    """CPU periods in which the cgroup ran, those in which it was held back, and seconds it was held back for."""

    periods: int
    throttled_periods: int
    throttled_seconds: float


@dataclass(frozen=True, slots=True)
class Stalls:
    """Seconds of pressure by resource and kind (some, full), and throttling; absent where the kernel does not tell."""

    pressure: MappingProxyType[tuple[str, str], float]
    throttling: Throttling | None


class Stalled:
    """Reads cgroups below `root`, the host's `/sys/fs/cgroup`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def read(self, cgroup: Cgroup) -> Stalls:
        """What there is of the owner's cgroup, empty where it cannot be found."""
        unified, legacy = self._unified(cgroup.unified), self._legacy(cgroup.cpu)
        pressure = {
            (resource, kind): seconds
            for resource in _RESOURCES
            if unified
            for kind, seconds in _pressure(_content(f"{unified}/{resource}.pressure"))
        }
        kept = (_throttling(_content(f"{folder}/cpu.stat")) for folder in (unified, legacy) if folder)
        return Stalls(MappingProxyType(pressure), next((throttling for throttling in kept if throttling), None))

    def found(self, cgroup: Cgroup) -> bool:
        """Whether the owner's cgroup is to be seen here at all."""
        return bool(self._unified(cgroup.unified) or self._legacy(cgroup.cpu))

    def _unified(self, path: str) -> str:
        """The folder of a version 2 path, "" if there is none; systemd mounts it at `unified` beside version 1."""
        if not path:
            return ""
        folders = (f"{self._root}{mount}/{place}" for place in _places(path) for mount in ("", "/unified"))
        return next(filter(os.path.isdir, folders), "")

    def _legacy(self, cpu: tuple[str, str]) -> str:
        """The folder of a version 1 path; its mount may have a short name beside that of its controllers."""
        mount, path = cpu
        if not path:
            return ""
        folders = (f"{self._root}/{folder}/{place}" for place in _places(path) for folder in (mount, "cpu"))
        return next(filter(os.path.isdir, folders), "")


def _places(path: str) -> Iterator[str]:
    """Where a path may lie from the host's root.

    One seen from another cgroup namespace (`/../../x`) lacks its first folders, but a slice is named after those it
    lies in (systemd.slice(5)), and what is in no slice of its own lies in one of a few.
    """
    _, separator, below = path.rpartition("/../")
    if not separator:
        yield path.lstrip("/")
        return
    first, _, rest = below.partition("/")
    if first.endswith(".slice"):
        words = first.removesuffix(".slice").split("-")
        slices = ("-".join(words[:count]) + ".slice" for count in range(1, len(words) + 1))
        yield f"{'/'.join(slices)}/{rest}"
    else:
        yield from (f"{parent}{below}" for parent in _PARENTS)


def _content(path: str) -> str:
    """The file, or "" where the kernel has none: not built in, off (psi=0), no controller, or the cgroup has ended."""
    try:
        return content(path)
    except OSError:
        return ""


def _pressure(text: str) -> Iterator[tuple[str, float]]:
    """Kind and seconds of lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234` (microseconds)."""
    for line in text.splitlines():
        kind, _, numbers = line.partition(" ")
        total = numbers.rpartition("total=")[2]
        if kind in ("some", "full") and total.isdecimal():
            yield kind, int(total) / 1e6


def _throttling(text: str) -> Throttling | None:
    """What `cpu.stat` says of the quota; None where the cgroup has no CPU controller."""
    fields = (line.partition(" ") for line in text.splitlines())
    values = {key: int(value) for key, _, value in fields if value.isdecimal()}
    try:
        seconds = values["throttled_usec"] / 1e6 if "throttled_usec" in values else values["throttled_time"] / 1e9
        return Throttling(values["nr_periods"], values["nr_throttled"], seconds)
    except KeyError:
        return None
