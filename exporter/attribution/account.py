"""The account of one device: what each owner holds, has held at most and has computed, over processes that change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palegreen.exporter.attribution.owners import Owner, Process
from palegreen.exporter.nvml.usage import ProcessUse
from palegreen.exporter.peak import Peak


@dataclass(slots=True)
class Share:
    """One owner's share of a device.

    `memory` and `busy` (seconds since the owner was first seen) are None where the driver does not tell. `containers`
    are the ids behind the owner's name, several while one takes the place of another.
    """

    containers: frozenset[str]
    processes: int = 0
    memory: int | None = None
    busy: float | None = None
    peak: Peak | None = None


class Account:
    """Shares of one GPU or MIG device by owner, and each process' highest memory by pid."""

    def __init__(self) -> None:
        self.shares: dict[Owner, Share] = {}
        self.peaks: dict[int, Peak] = {}
        self._started: dict[int, int | None] = {}
        self._busy: dict[int, float] = {}

    def update(self, now: float, listed: Iterable[tuple[ProcessUse, Process | None]]) -> None:
        """The processes there are now, None for those of which nothing is known; an owner without any is gone."""
        listed = list(listed)
        self._processes(now, listed)
        grouped: dict[Owner, list[ProcessUse]] = {}
        containers: dict[Owner, set[str]] = {}
        added: dict[Owner, float] = {}
        for use, process in listed:
            delta = self._computed(use)
            if process is not None:
                grouped.setdefault(process.owner, []).append(use)
                containers.setdefault(process.owner, set()).add(process.cgroup.container)
                if delta is not None:
                    added[process.owner] = added.get(process.owner, 0.0) + delta
        pids = {use.pid for use, _ in listed}
        self._busy = {pid: seconds for pid, seconds in self._busy.items() if pid in pids}
        before = self.shares
        self.shares = {owner: _continued(before.get(owner), containers[owner]) for owner in grouped}
        for owner, share in self.shares.items():
            _add(share, now, grouped[owner], added.get(owner))

    def _computed(self, use: ProcessUse) -> float | None:
        """Seconds since the last look; a total that went on counts from where it was, even for another process."""
        if use.busy_seconds is None:
            return None
        before = self._busy.get(use.pid, 0.0)
        self._busy[use.pid] = use.busy_seconds
        return use.busy_seconds - before if use.busy_seconds >= before else use.busy_seconds

    def _processes(self, now: float, listed: list[tuple[ProcessUse, Process | None]]) -> None:
        started = {use.pid: process.started if process else None for use, process in listed}
        before, self.peaks = self.peaks, {}
        for use, _ in listed:
            peak = before.get(use.pid) if self._started.get(use.pid) == started[use.pid] else None
            if use.memory_bytes is not None:
                peak = peak or Peak()
                peak.see(now, use.memory_bytes)
            if peak is not None:
                self.peaks[use.pid] = peak
        self._started = started


def _continued(share: Share | None, containers: set[str]) -> Share:
    """The owner's share so far; a container that was started anew begins at nothing, though it has the same name."""
    if share is None or share.containers.isdisjoint(containers):
        return Share(frozenset(containers))
    share.containers = frozenset(containers)
    return share


def _add(share: Share, now: float, uses: list[ProcessUse], busy: float | None) -> None:
    share.processes = len(uses)
    held = [use.memory_bytes for use in uses if use.memory_bytes is not None]
    share.memory = sum(held) if len(held) == len(uses) else None
    if busy is not None:
        share.busy = (share.busy or 0.0) + busy
    if share.memory is not None:
        share.peak = share.peak or Peak()
        share.peak.see(now, share.memory)
