"""Real cgroups with real processes in them, where this machine lets us make some."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from support.waiting import until

_ROOT = Path("/sys/fs/cgroup")


class Kernel:
    """A folder of our own in each hierarchy of interest; raises OSError where none can be made."""

    def __init__(self) -> None:
        hybrid = (_ROOT / "unified").is_dir()
        self._unified = (_ROOT / "unified" if hybrid else _ROOT) / f"palegreen-test-{os.getpid()}"
        self._cpu = _ROOT / "cpu" / self._unified.name
        self._running: list[subprocess.Popen[bytes]] = []
        self._unified.mkdir()
        self.quota = hybrid and (_ROOT / "cpu/cpu.stat").exists()
        if self.quota:
            self._cpu.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        for top in (self._unified, self._cpu):
            until(lambda top=top: _removed(top), 10)

    def start(self, path: str, program: str, cpu_percent: int = 0) -> int:
        """The pid of a Python program that runs in the cgroup."""
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        self._running.append(process)
        for top in (self._unified, self._cpu) if self.quota else (self._unified,):
            (top / path).mkdir(parents=True)
            if top == self._cpu and cpu_percent:
                (top / path / "cpu.cfs_quota_us").write_text(str(cpu_percent * 1000))
            (top / path / "cgroup.procs").write_text(str(process.pid))
        return process.pid

    def pressures(self, path: str) -> dict[str, str]:
        """The pressure files there are, by resource."""
        return {name: text for name in ("cpu", "memory", "io") for text in _text(self._unified / path, name)}

    def seen_from(self, inside: int, pid: int) -> str:
        """`/proc/PID/cgroup` as seen from a cgroup namespace made in the cgroup of the process `inside`."""
        path = next(line for line in Path(f"/proc/{inside}/cgroup").read_text().splitlines() if line[:3] == "0::")[3:]
        procs = self._unified.parent / path.lstrip("/") / "cgroup.procs"
        script = f"echo $$ > {procs} && exec unshare --cgroup cat /proc/{pid}/cgroup"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        return done.stdout


def _text(folder: Path, name: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield (folder / f"{name}.pressure").read_text()


def _removed(top: Path) -> bool:
    """Whether the cgroup and those in it are gone; one cannot be removed before its last process has been reaped."""
    if top.is_dir():
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
    return not top.is_dir()
