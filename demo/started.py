"""What the demo has started: engines and daemons, each of which ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

from palegreen.demo.ending import Ending
from palegreen.demo.engine import LlamaServer
from palegreen.demo.process import ask, end

PALEGREEN = (sys.executable, "-m", "palegreen.cli.main")
_READY_WITHIN = 60.0  # seconds for a daemon to show its first readings


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


class Program(NamedTuple):
    """A program that was started, to be harmed."""

    started: Started
    name: str

    def kill(self) -> None:
        """End it at once, as a machine that runs out of memory does."""
        self.started.kill(self.name)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.started.signal(self.name, number)

    def again(self) -> None:
        """Start it as it was started before. Raises DemoError."""
        self.started.again(self.name)


class Started:
    """Starts programs whose output goes to files in `folder`; when the block ends, all are told before any is waited
    for."""

    def __init__(self, folder: Path, asked: Ending) -> None:
        self.folder = folder
        self._asked = asked
        self._engines: list[LlamaServer] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._again: dict[str, Callable[[], None]] = {}
        self._claims: list[socket.socket] = []
        self._lock, self._over = threading.Lock(), False

    def engine(self, server: LlamaServer) -> None:
        """Stop this one too."""
        self._engines.append(server)

    def palegreen(
        self,
        name: str,
        command: Sequence[str],
        ready: Callable[[], bool],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Program:
        """Start a daemon of Palegreen under a name; its log is `NAME.log`. Raises DemoError."""
        return self.program(name, [*PALEGREEN, *command], ready, environment)

    def program(
        self,
        name: str,
        command: Sequence[str],
        ready: Callable[[], bool],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Program:
        """Start any program and wait until it is ready. `ready` may raise OSError, which means not yet."""

        def begin() -> None:
            with self._lock, self.log(name).open("ab") as output:
                if self._over:
                    raise DemoError("the demo ends")
                self._processes[name] = subprocess.Popen(
                    command,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self._wait(name, ready)

        self._again[name] = begin
        begin()
        return Program(self, name)

    def port(self, wanted: int) -> int:
        """That port of 127.0.0.1 if it is free, else any free one. Raises DemoError."""
        for candidate in (wanted, 0):
            if candidate and not self._claimed(candidate):
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    probe.bind(("127.0.0.1", candidate))
                    return int(probe.getsockname()[1])
        raise DemoError("no free port on 127.0.0.1")

    def log(self, name: str) -> Path:
        """The file with what a program says."""
        return self.folder / f"{name}.log"

    def kill(self, name: str) -> None:
        """End a program at once."""
        self._processes[name].kill()
        self._processes[name].wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a program a signal."""
        self._processes[name].send_signal(number)

    def again(self, name: str) -> None:
        """Start a program that was killed as it was started before. Raises DemoError."""
        self._again[name]()

    def _claimed(self, port: int) -> bool:
        """Whether no other demo that starts now looks at the port: between looking and listening seconds go by."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0palegreen-demo-{port}")  # of Linux, and gone with the process
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline:
            if self._over:
                raise DemoError("the demo ends")
            if threading.current_thread() is threading.main_thread():
                self._asked.check()
            if self._processes[name].poll() is not None:
                raise DemoError(f"{name} ended: {self._said(name)}")
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.1)
        raise DemoError(f"{name} is not ready after {_READY_WITHIN:g} s: {self._said(name)}")

    def _said(self, name: str) -> str:
        return self.log(name).read_text(errors="replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
        for server in self._engines:
            server.ask()
        for process in self._processes.values():
            ask(process)
        end(*self._processes.values())
        for server in self._engines:
            server.stop()
        for claim in self._claims:
            claim.close()


def answers(url: str) -> bool:
    """Whether the URL answers with 200. Raises OSError where nobody answers."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return bool(response.status == 200)
