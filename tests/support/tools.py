"""Programs of Prometheus that tests run; a test that needs one which cannot be had is skipped with the reason."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from palegreen.demo import tools


def program(name: str, oldest: tuple[int, int] = (0, 0)) -> Path:
    """Where a tool is; skips the test where there is none, or an older one than it needs."""
    tool = tools.find(name)
    if tool.path is None:
        pytest.skip(f"{name}: {tool.reason}")
    version = _version(tool.path) if any(oldest) else oldest
    if version < oldest:
        pytest.skip(f"{name} is {version[0]}.{version[1]}, the test needs {oldest[0]}.{oldest[1]} or newer")
    return tool.path


@cache
def _version(path: Path) -> tuple[int, ...]:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"version (\d+)\.(\d+)", done.stdout + done.stderr)
    assert found, f"{path} does not tell its version: {done.stdout}{done.stderr}"
    return int(found[1]), int(found[2])
