"""`/proc/PID/cgroup` read: the container, pod or systemd unit a process belongs to, and where its cgroup lies.

A line is `HIERARCHY:CONTROLLERS:PATH` (man 7 cgroups), `0::PATH` for version 2. Runtimes differ in what they put around
the container's id of 64 hexadecimal digits, not in the id: `<id>`, `crio-<id>`, `docker-<id>.scope`,
`kubepods-pod<uid>.slice:cri-containerd:<id>`. Seen from another cgroup namespace, as most pods have one, a path begins
with `/../..` and lacks its first folders (cgroup_namespaces(7)), so nothing is expected at a fixed depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"  # 32 digits: a static pod's hash
_POD = re.compile(rf"(?:[a-z0-9-]*-)?pod({_UID})(?:\.slice)?")
_CONTAINER = re.compile(r"(?:[a-z][a-z0-9.-]*-)?([0-9a-f]{64})(?:\.scope)?")
_MONITOR = re.compile(r"(?:crio|libpod)-conmon-.*")  # conmon watches a container from outside
_UNIT = (".service", ".scope")
_USER_MANAGER = re.compile(r"user@\d+\.service")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Whose a process is; "" for what its cgroup does not tell.

    `container` is the full id, `pod` the pod's UID, `unit` a systemd unit, only outside containers. `unified` is the
    path of the owner's cgroup in version 2, `cpu` the mount's name and the path in version 1; nested cgroups are cut.
    """

    container: str = ""
    pod: str = ""
    unit: str = ""
    unified: str = ""
    cpu: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class _Owner:
    container: str = ""
    pod: str = ""
    unit: str = ""


def parse(text: str) -> Cgroup:
    """What a `/proc/PID/cgroup` says; lines that are none are passed over."""
    paths = dict(_lines(text))
    found = {controllers: _owner(path) for controllers, path in paths.items()}
    # Containers of version 1 may be in their engine's own unit in the other hierarchies.
    first = sorted(found.values(), key=lambda member: (not member[0].container, not member[0].pod))
    owner = next((owner for owner, _ in first if owner != _Owner()), None)
    if owner is None:
        return Cgroup()
    where = {controllers: path for controllers, (whose, path) in found.items() if whose == owner}
    cpu = next((name for name in where if "cpu" in name.split(",")), "")
    return Cgroup(owner.container, owner.pod, owner.unit, where.get("", ""), (cpu, where[cpu] if cpu else ""))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Controllers and path, version 2 (no controllers) and systemd's own hierarchy first."""
    parts = [line.split(":", 2) for line in text.split("\n")]
    known = {part[1]: part[2].removesuffix(" (deleted)") for part in parts if len(part) == 3 and part[2][:1] == "/"}
    yield from sorted(known.items(), key=lambda item: ("", "name=systemd", item[0]).index(item[0]))


def _owner(path: str) -> tuple[_Owner, str]:
    """The owner, and the path of its cgroup.

    The outermost pod counts and the first container in it: what runs inside a container, itself a container or not,
    is that container's, and cannot pass for another. Only containers around a pod are not its owner (a node that is a
    container).
    """
    components = path.split("/")
    container = pod = ""
    end = 0
    for index, component in enumerate(components, 1):
        for part in component.split(":"):
            if not pod and (match := _POD.fullmatch(part)):
                pod, container, end = match[1].replace("_", "-"), "", index
            elif not container and (match := _CONTAINER.fullmatch(part)) and not _MONITOR.fullmatch(part):
                container, end = match[1], index
    unit = ""
    if not end:
        unit, end = _unit(components)
    return _Owner(container, pod, unit), "/".join(components[:end])


def _unit(components: list[str]) -> tuple[str, int]:
    """The outermost unit; below a user's own manager the unit it runs, with the manager's name before it."""
    units = [(part, index) for index, part in enumerate(components, 1) if part.endswith(_UNIT)]
    if not units:
        return "", 0
    if _USER_MANAGER.fullmatch(units[0][0]) and len(units) > 1:
        return f"{units[0][0]}/{units[1][0]}", units[1][1]
    return units[0]
