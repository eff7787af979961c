"""The demo ends when it is told to, whatever it is at, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import until

from palegreen.demo.ending import ending
from palegreen.demo.process import end
from palegreen.demo.started import DemoError, Started

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


class _Swallows:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # Python drops what is raised in here


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_got_lost_in_a_callback_is_not_forgotten() -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with ending() as asked:
        asked.check()
        _Swallows()
        assert asked.asked
        with pytest.raises(KeyboardInterrupt):
            asked.check()
        os.kill(os.getpid(), signal.SIGTERM)  # the second one does not interrupt the stopping
    assert signal.getsignal(signal.SIGINT) == before


def test_either_signal_ends_a_wait() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt), ending():
            os.kill(os.getpid(), number)
            until(lambda: False)


def test_all_processes_are_told_before_any_is_waited_for_and_none_is_left() -> None:
    stubborn, stopped, willing = (
        subprocess.Popen(command, stdout=subprocess.PIPE) for command in (STUBBORN, SLEEP, SLEEP)
    )
    for process in (stubborn, stopped, willing):
        with process.stdout or pytest.fail() as out:
            assert out.readline() == b"up\n"
    stopped.send_signal(signal.SIGSTOP)
    end(stubborn, stopped, willing)
    assert stubborn.returncode == -signal.SIGKILL
    assert stopped.returncode == willing.returncode == -signal.SIGTERM, "heard while the first was waited for"


def test_what_was_started_can_be_killed_and_started_again_and_one_that_ends_by_itself_is_said(tmp_path: Path) -> None:
    with ending() as asked, Started(tmp_path, asked) as started:
        started.program("sleeper", SLEEP, lambda: "up" in started.log("sleeper").read_text())
        started.kill("sleeper")
        started.again("sleeper")
        until(lambda: started.log("sleeper").read_text().count("up") == 2)
        with pytest.raises(DemoError, match=r"^broken ended: no way$"):
            started.program("broken", ["sh", "-c", "echo no way; exit 3"], lambda: False)
