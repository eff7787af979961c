"""What the evaluator knows of deploys from one start to the next: a small JSON file beside the store."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

_MOST = 1 << 20


def beside(store: Path | None) -> Path | None:
    """The file of a store; None where there is no store, and nothing outlives the evaluator."""
    return store.with_name(f"{store.name}.deploys.json") if store is not None else None


def read(path: Path | None) -> dict[str, Any]:
    """What was written, empty if nothing was. One that cannot be read is said and begun anew."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_MOST))
        if not isinstance(said, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as refused:
        log.warning("deploy.memory_unreadable", path=str(path), cause=str(refused), effect="it begins anew")
        return {}
    return said


def write(path: Path, what: dict[str, Any]) -> str:
    """Replace the file at once, mode 0600; why it cannot be, empty if it is."""
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as writing:
            writing.write(json.dumps(what).encode())
        staged.replace(path)
    except OSError as refused:
        with suppress(OSError):
            staged.unlink()
        return refused.strerror or str(refused)
    return ""
