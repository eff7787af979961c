"""A host's /proc, /var/log and /sys/fs/cgroup in a folder, as kernel, kubelet and runtimes lay them out."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path


class Host:
    """Processes, log folders and cgroups below `root`, changed while a source reads them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.logs = root / "var/log"
        self.cgroups = root / "sys/fs/cgroup"
        self._listening: dict[str, list[str]] = {"tcp": [], "tcp6": []}
        for folder in (self.proc, self.logs / "containers", self.logs / "pods", self.cgroups):
            folder.mkdir(parents=True)

    def process(self, pid: int, cgroup: str, started: int = 1000, command: str = "python3", parent: int = 1) -> None:
        """A process from now on; a `cgroup` that begins with / is a path of version 2."""
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        text = f"0::{cgroup}\n" if cgroup.startswith("/") else cgroup
        (folder / "cgroup").write_text(text, encoding="utf-8", errors="surrogateescape")
        (folder / "comm").write_text(f"{command}\n", encoding="utf-8")
        fields = " ".join(["S", str(parent), *(["0"] * 17), str(started), "0"])
        (folder / "stat").write_text(f"{pid} ({command}) {fields}\n", encoding="utf-8")

    def listen(self, pid: int, port: int, inode: int, address: str = "127.0.0.1") -> None:
        """A listening socket that the process holds; called again for another process that has inherited it."""
        version = "tcp6" if ":" in address else "tcp"
        packed = socket.inet_pton(socket.AF_INET6 if version == "tcp6" else socket.AF_INET, address)
        words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
        local = f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
        end = f"{'0' * 2 * len(packed)}:0000"
        line = f"{local} {end} 0A 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0"
        self._listening[version] += [line] if line not in self._listening[version] else []
        (self.proc / "net").mkdir(exist_ok=True)
        for name, lines in self._listening.items():  # connections come after what listens, as the kernel has it
            other = f"{local} {local} 01 00000000:00000000 00:00000000 00000000     0        0 999 1 0 20 4 30 10 -1"
            rows = (f"{number:4d}: {line}\n" for number, line in enumerate([*lines, other]))
            (self.proc / "net" / name).write_text("  sl  local_address ...\n" + "".join(rows), encoding="ascii")
        folder = self.proc / str(pid) / "fd"
        folder.mkdir(exist_ok=True)
        (folder / str(inode)).symlink_to(f"socket:[{inode}]")

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
