"""A small file system of one's own, in a process that may mount (a user namespace)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def on_a_disk(folder: Path, code: str, size: str = "1m") -> Any:
    """What `code` leaves in `result`, run where the folder `disk` is a file system of that size.

    `remount(flags)` and `view` (the same files, read-only, elsewhere) are there for it. Skips where nobody may mount.
    """
    disk, view = folder / "disk", folder / "view"
    disk.mkdir()
    view.mkdir()
    program = f"""
import json, subprocess, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
import structlog
from support.samples import batch
from palegreen.evaluators.store.query import Filter, Reader, StoreError
from palegreen.evaluators.store.store import Store
disk, view = Path({str(disk)!r}), Path({str(view)!r})
structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.stderr), processors=[structlog.processors.JSONRenderer()]
)
def remount(flags):
    subprocess.run(["mount", "-o", f"remount,{{flags}}", str(disk)], check=True)
{code}
print(json.dumps(result))
"""
    mounts = f'mount -t tmpfs -o size={size} tmpfs "$0" && mount --bind "$0" "$1" && mount -o remount,ro,bind "$1"'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, mounts, disk, view], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    command = [*unshare, f'{mounts} && exec "$2" -c "$3"', disk, view, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    logged = [json.loads(line) for line in done.stderr.splitlines()]
    return json.loads(done.stdout), logged
