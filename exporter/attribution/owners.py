"""Process -> owner: whose a pid is, in Kubernetes' terms or in systemd's."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

from palegreen.exporter.attribution.cgroup import Cgroup, parse
from palegreen.exporter.attribution.names import Names
from palegreen.exporter.kernelfile import content, started

_MOST = 1024  # processes remembered
_FRESH = 30.0  # seconds after which a process' cgroup is read again: it may have been moved
_FRESH_UNNAMED = 5.0  # seconds, while its container has no name yet
_SHORT = 12  # digits of a container's id, as runtimes show it

Reason = Literal["not_found", "unreadable"]


class HiddenError(Exception):
    """Nothing can be said of a process. `reason` is not_found (ended, or of another pid namespace) or unreadable."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Owner(NamedTuple):
    """Whose a process is; "" is what does not apply or is not known.

    `container_id`, twelve digits, is set only where the container's name is not known and keeps two such apart. `unit`
    is the systemd unit of a process outside containers, or its command name where that was asked for.
    """

    namespace: str = ""
    pod: str = ""
    container: str = ""
    container_id: str = ""
    unit: str = ""


class Process(NamedTuple):
    """A process; `started` is in clock ticks since boot and tells it from an earlier one of the same pid."""

    started: int
    owner: Owner
    cgroup: Cgroup


class Owners:
    """Owners of processes, remembered. `proc` and `logs` are the host's `/proc` and `/var/log`.

    With `commands` a process that is in no container and no unit has its command's name for a unit. Thread-safe.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        logs: Path = Path("/var/log"),
        *,
        commands: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.proc = proc
        self._folder = str(proc)
        self._commands = commands
        self._clock = clock
        self._names = Names(logs, clock)
        self._known: OrderedDict[int, tuple[float, Process]] = OrderedDict()
        self._lock = Lock()

    def of(self, pid: int) -> Owner | None:
        """Whose the process is; None when nothing can be said of it."""
        try:
            return self.process(pid).owner
        except HiddenError:
            return None

    def process(self, pid: int) -> Process:
        """The process and its owner; raises HiddenError."""
        with self._lock:
            began, now = self._started(pid), self._clock()
            until, process = self._known.get(pid, (now, None))
            if process is None or process.started != began or now >= until:
                process = self._look(pid, began)
                unnamed = process.owner.container_id
                self._known[pid] = now + (_FRESH_UNNAMED if unnamed else _FRESH), process
            self._known.move_to_end(pid)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
            return process

    @property
    def trouble(self) -> str:
        """Why containers have no names; "" while the folders can be read."""
        return self._names.trouble

    def _look(self, pid: int, began: int) -> Process:
        cgroup = parse(self._read(pid, "cgroup"))
        if cgroup.container or cgroup.pod:
            name = self._names.of(cgroup.container, cgroup.pod)
            namespace, pod, container = name or ("", "", "")
            owner = Owner(namespace, pod, container, "" if container else cgroup.container[:_SHORT])
        else:
            unit = cgroup.unit
            if not unit and self._commands:
                unit = self._read(pid, "comm").removesuffix("\n")
            owner = Owner(unit=unit)
        return Process(began, owner, cgroup)

    def _started(self, pid: int) -> int:
        try:
            return started(self._read(pid, "stat"))
        except ValueError:
            raise HiddenError("unreadable") from None

    def _read(self, pid: int, file: str) -> str:
        try:
            return content(f"{self._folder}/{pid}/{file}")
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            raise HiddenError("not_found") from None
        except OSError:
            raise HiddenError("unreadable") from None
