"""Processes that the demo starts and must not leave behind."""

from __future__ import annotations

import subprocess

_GRACE = 5.0  # seconds to end by itself


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and make it when it does not."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
