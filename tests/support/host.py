"""A host's /proc, /var/log and /sys/fs/cgroup in a folder, as kernel, kubelet and runtimes lay them out."""

from __future__ import annotations

import shutil
from pathlib import Path


class Host:
    """Processes, log folders and cgroups below `root`, changed while a source reads them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.logs = root / "var/log"
        self.cgroups = root / "sys/fs/cgroup"
        for folder in (self.proc, self.logs / "containers", self.logs / "pods", self.cgroups):
            folder.mkdir(parents=True)

    def process(self, pid: int, cgroup: str, started: int = 1000, command: str = "python3") -> None:
        """A process from now on; a `cgroup` that begins with / is a path of version 2."""
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        text = f"0::{cgroup}\n" if cgroup.startswith("/") else cgroup
        (folder / "cgroup").write_text(text, encoding="utf-8", errors="surrogateescape")
        (folder / "comm").write_text(f"{command}\n", encoding="utf-8")
        fields = " ".join(["S", "1", *(["0"] * 17), str(started), "0"])
        (folder / "stat").write_text(f"{pid} ({command}) {fields}\n", encoding="utf-8")

    def end(self, pid: int) -> None:
        """The process ends."""
        shutil.rmtree(self.proc / str(pid))

    def pod(self, namespace: str, pod: str, uid: str, **containers: str) -> None:
        """What the kubelet makes for a pod; `containers` are ids by name."""
        for name, identity in containers.items():
            folder = self.logs / "pods" / f"{namespace}_{pod}_{uid}" / name
            folder.mkdir(parents=True)
            link = self.logs / "containers" / f"{pod}_{namespace}_{name}-{identity}.log"
            link.symlink_to(f"/var/log/pods/{folder.parent.name}/{name}/0.log")

    def remove_pod(self, pod: str) -> None:
        """The kubelet has cleaned up."""
        for link in (self.logs / "containers").glob(f"{pod}_*"):
            link.unlink()
        for folder in (self.logs / "pods").glob(f"*_{pod}_*"):
            shutil.rmtree(folder)

    def cgroup(self, path: str, **files: str) -> None:
        """Files of a cgroup; `_` in a name stands for a dot."""
        folder = self.cgroups / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text, encoding="ascii")
