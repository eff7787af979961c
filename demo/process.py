"""Processes that the demo starts and must not leave behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

_GRACE = 5.0  # seconds to end by itself


def ask(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and do not wait. One that was stopped goes on, so that it hears."""
    process.terminate()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Ask the processes to end, all before the first is waited for, and make those that do not."""
    for process in processes:
        ask(process)
    deadline = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    for process in processes:
        process.wait()
