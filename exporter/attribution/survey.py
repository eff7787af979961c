"""What of the node can be seen from here, for the preflight: processes, names of pods, cgroups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palegreen.exporter.attribution.owners import HiddenError, Owners
from palegreen.exporter.attribution.stalls import Stalled

_FIRST_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h


@dataclass(slots=True)
class Survey:
    """Counts over all processes there are.

    `own_namespace`: only those of one pid namespace are to be seen, which is not the node's. `hidden`: not even the
    first process is listed (hidepid=2).
    `nameless` are pods (UIDs) whose names are not known, `unseen` containers whose cgroup is not to be found.
    """

    own_namespace: bool
    hidden: bool
    processes: int
    unreadable: int
    pods: int
    nameless: int
    containers: int
    unseen: int


def survey(proc: Path, owners: Owners, stalled: Stalled) -> Survey:
    """Look at each process below `proc`; raises OSError when it cannot be listed."""
    pids = [int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()]
    unreadable = 0
    pods: dict[str, str] = {}
    containers: dict[str, bool] = {}
    for pid in pids:
        try:
            process = owners.process(pid)
        except HiddenError as hidden:
            unreadable += hidden.reason == "unreadable"
            continue
        cgroup = process.cgroup
        if cgroup.pod:
            pods[cgroup.pod] = pods.get(cgroup.pod, "") or process.owner.pod
        if cgroup.container and cgroup.container not in containers:
            containers[cgroup.container] = stalled.found(cgroup)
    return Survey(
        own_namespace=_namespace(proc) not in ("", _FIRST_NAMESPACE),
        hidden=1 not in pids,
        processes=len(pids),
        unreadable=unreadable,
        pods=len(pods),
        nameless=sum(not name for name in pods.values()),
        containers=len(containers),
        unseen=sum(not found for found in containers.values()),
    )


def _namespace(proc: Path) -> str:
    """The pid namespace of this process, "" where it is not told."""
    try:
        return str((proc / "self/ns/pid").readlink())
    except OSError:
        return ""
