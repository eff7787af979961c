"""Stragglers: a GPU that falls behind the others that work for the same engine holds all of them back.

The GPUs of an engine are those on which processes of one container, or of one systemd unit, run.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from palegreen.exporter.attribution.owners import Owner
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import Collected, Readings

_MINUTE = 60.0


class StragglerSource:
    """How far each GPU of a group is below the median of its siblings, in clock and in busy time of the last minute."""

    name = "stragglers"
    target = ""
    interval = 5.0
    deadline = 5.0

    def __init__(
        self,
        usage: Callable[[], Sequence[DeviceUse]],
        owner_of: Callable[[int], Owner | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usage = usage
        self._owner_of = owner_of
        self._clock = clock
        self._busy: dict[str, deque[tuple[float, float]]] = {}

    def collect(self) -> Readings:
        """Deficits of every group of at least two whole GPUs."""
        devices = {device.uuid: device for device in self._usage() if not device.mig}
        signals = {"sm_clock": _clocks(devices), "busy": self._busy_ratios(devices)}
        collected = Collected()
        for owner, members in self._groups(devices).items():
            for signal, values in signals.items():
                for uuid, deficit in _deficits({uuid: values[uuid] for uuid in members if uuid in values}):
                    gpu = devices[uuid].gpu
                    collected.add("palegreen_gpu_group_deficit_ratio", deficit, uuid, gpu, "", *owner, signal)
        return collected.readings()

    def close(self) -> None:
        """Nothing is held."""

    def describe(self) -> str:
        """What is compared."""
        return "GPUs of one container or unit among each other"

    def _groups(self, devices: Mapping[str, DeviceUse]) -> dict[Owner, list[str]]:
        found: dict[Owner, list[str]] = defaultdict(list)
        for uuid, device in devices.items():
            for owner in {self._owner_of(process.pid) for process in device.processes}:
                if owner is not None and any(owner):
                    found[owner].append(uuid)
        return {owner: members for owner, members in found.items() if len(members) > 1}

    def _busy_ratios(self, devices: Mapping[str, DeviceUse]) -> dict[str, float]:
        """Mean utilisation since a minute ago, of GPUs that were there for at least half of it."""
        now = self._clock()
        self._busy = {uuid: self._busy.get(uuid, deque()) for uuid in devices}
        ratios: dict[str, float] = {}
        for uuid, device in devices.items():
            if device.busy_seconds is None:
                continue
            seen = self._busy[uuid]
            seen.append((now, device.busy_seconds))
            while now - seen[0][0] > _MINUTE:
                seen.popleft()
            elapsed = now - seen[0][0]
            if elapsed >= _MINUTE / 2:
                ratios[uuid] = (device.busy_seconds - seen[0][1]) / elapsed
        return ratios


def _clocks(devices: Mapping[str, DeviceUse]) -> dict[str, float]:
    return {uuid: clock for uuid, device in devices.items() if (clock := device.sm_clock_hertz) is not None}


def _deficits(values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """1 - own value over the median of the others, at least 0; nothing where the others do nothing."""
    for uuid, value in values.items():
        others = [other for sibling, other in values.items() if sibling != uuid]
        if others and (typical := median(others)) > 0:
            yield uuid, max(0.0, 1 - value / typical)
