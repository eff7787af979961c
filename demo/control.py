"""How `palegreen demo fault` reaches the demo that runs: a unix socket of this user, a line there and a line back."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_MOST = 4096
_DONE = "done"
_ANSWER_WITHIN = 180.0  # seconds; an engine that is started again takes a few


def _path() -> Path:
    return Path(tempfile.gettempdir()) / f"palegreen-demo-{os.getuid()}.sock"


def tell(line: str) -> tuple[bool, str]:
    """Say a line to the demo that runs; whether it did it, and what it says. Raises OSError if none runs."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_WITHIN)
        connection.connect(str(_path()))
        connection.sendall(line.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        done, _, said = connection.makefile(encoding="utf-8").read().strip().partition(" ")
        return done == _DONE, said


@contextlib.contextmanager
def listening(answer: Callable[[str], tuple[bool, str]]) -> Iterator[bool]:
    """Answer lines while the block runs; whether it does, which it does not while another demo does."""
    path = _path()
    with socket.socket(socket.AF_UNIX) as server:
        with socket.socket(socket.AF_UNIX) as probe:
            taken = probe.connect_ex(str(path)) == 0
        if taken:
            yield False
            return
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server.bind(str(path))
        finally:
            os.umask(before)
        server.listen()
        threading.Thread(target=_serve, args=(server, answer), name="control", daemon=True).start()
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, answer: Callable[[str], tuple[bool, str]]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # closed: the demo ends
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            line = connection.recv(_MOST).decode(errors="replace").strip()
            if line:
                done, said = answer(line)
                connection.sendall(f"{_DONE if done else 'refused'} {said}\n".encode())
