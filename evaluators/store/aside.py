"""Corrupt stores are put out of the way, not repaired; what was put there is not kept for ever either."""

from __future__ import annotations

import time
from pathlib import Path

SIDES = ("", "-wal", "-shm")


def put_aside(path: Path, now: float) -> Path:
    """Rename the store to `NAME.corrupt-TIME` and delete what was put aside before; its new name. Raises OSError."""
    forget(path, before=float("inf"))
    name = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}")
    for side in SIDES:
        beside = path.with_name(path.name + side)
        if beside.exists():
            beside.rename(name.with_name(name.name + side))
    return name


def forget(path: Path, before: float) -> None:
    """Delete what was put aside and last written before that time: it holds texts too. Raises OSError."""
    for old in path.parent.iterdir():
        if old.name.startswith(f"{path.name}.corrupt-") and old.stat().st_mtime < before:
            old.unlink()
