"""Who did what: one JSON line for each `samples show` and `export`, written before any text is given out, and for each
`baseline promote`.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()


class AuditError(Exception):
    """The line cannot be written, so nothing is given out; one line."""


def audit(store: Path, command: str, samples: int, **what: Any) -> None:
    """Append to `STORE.audit.jsonl` (mode 0600) and to the log who asked for how many samples.

    Raises:
        AuditError: the file cannot be written.
    """
    path = store.with_name(f"{store.name}.audit.jsonl")
    what = {"store": str(store.absolute()), "samples": samples, **what}
    append(path, f"samples.{command}", command, what, "no sample is given out")


def append(path: Path, event: str, command: str, what: Mapping[str, Any], otherwise: str) -> None:
    """Append one line to an audit file (mode 0600) and to the log: who, when, which command, and `what`.

    Raises:
        AuditError: the file cannot be written; the line ends in what therefore is not done, `otherwise`.
    """
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "command": command, **_who(), **what}
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        try:
            text = json.dumps(line).encode() + b"\n"
            if os.write(file, text) != len(text):  # one write, so that lines of two commands do not mix
                raise OSError("it was written in part")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as refused:
        reason = refused.strerror or str(refused)
        raise AuditError(f"{path}: the audit line cannot be written, so {otherwise}: {reason}") from None
    log.info(event, **{name: value for name, value in line.items() if name not in ("time", "command")})


def _who() -> Mapping[str, Any]:
    """The user, and who became that user by sudo."""
    who: dict[str, Any] = {"uid": os.getuid(), "user": str(os.getuid())}
    with suppress(KeyError):  # an id without a name, as in most containers
        who["user"] = pwd.getpwuid(os.getuid()).pw_name
    if "SUDO_USER" in os.environ:
        who["sudo_user"] = os.environ["SUDO_USER"]
    return who
