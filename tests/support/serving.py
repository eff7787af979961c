"""Serving processes of the tests: a Python program in a process of its own, spoken to line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

TESTS = Path(__file__).parent.parent
PRELUDE = f"""\
import os, sys, time
sys.path.insert(0, {str(TESTS)!r})
from support.caching import MIB, CachingAllocator
from support.fake_torch import install
from palegreen.inprocess import allocator as probe
def say(*words): print(*words, flush=True)
"""


class Serving:
    """Runs `program` after PRELUDE; the program answers with `say` and is told to go on with `tell`."""

    def __init__(self, program: str, *options: str, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *options, "-c", PRELUDE + program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | dict(env or {}),
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def hear(self) -> str:
        """The next line it says; fails with what it wrote to standard error if it says nothing."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline().strip()
        assert line, self._process.stderr.read()
        return line

    def tell(self, word: str = "on") -> None:
        """One line for it to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """Let it end by itself; what it wrote to standard error."""
        _, errors = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, errors
        return errors

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)


class Writer(Serving):
    """A process that puts given bytes into a file of its own, as a probe would; not all of them are true."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            "from palegreen.inprocess.recordfile import RecordFile\n"
            f"files = [RecordFile({str(folder)!r})]\n"
            "for line in sys.stdin:\n"
            "    if line.strip() == 'another':\n"
            f"        files.append(RecordFile({str(folder)!r}))\n"
            "    else:\n"
            "        number, _, body = line.partition(' ')\n"
            "        files[int(number)].write(bytes.fromhex(body))\n"
            "    say('done')\n"
        )

    def write(self, body: bytes, file: int = 0) -> None:
        """Into one of its files."""
        self.tell(f"{file} {body.hex()}")
        self.hear()

    def another(self) -> None:
        """Begin one more file."""
        self.tell("another")
        self.hear()
