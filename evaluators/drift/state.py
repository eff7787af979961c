"""What the detectors have seen, on disk: they go on from it after a restart. Plain arrays, never pickle."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from palegreen.evaluators.drift.alarm import Alarm
from palegreen.evaluators.drift.config import DriftConfig
from palegreen.evaluators.drift.watch import Watch, Whose

log = structlog.get_logger()

EVERY = 10.0
"""Seconds between two writes at least."""
_FORMAT = 1
_MOST = 64 << 20


def place(config: DriftConfig, store: Path | None) -> Path | None:
    """The file of the state: as configured, else beside the store; None where nothing is kept."""
    if config.state == "none":
        return None
    if config.state:
        return Path(config.state)
    return store.with_name(f"{store.name}.drift") if store is not None else None


class Keeper:
    """Keeps a watch's state in a file; None: nowhere. What cannot be read or written is one line in the log.

    A state of another baseline, or of other checks or segments, is refused.
    """

    def __init__(self, watch: Watch, path: Path | None) -> None:
        self._watch, self._path = watch, path
        self._written = time.monotonic()
        self._seen = watch.seen
        self._silent = False
        if path is not None:
            self._restore(path)

    def keep(self, *, now: bool = False) -> None:
        """Write the state, if there is something new and some time has passed, or `now`."""
        moment = time.monotonic()
        if self._path is None or self._seen == self._watch.seen or not (now or moment - self._written >= EVERY):
            return
        self._written, self._seen = moment, self._watch.seen
        try:
            _write(self._path, _packed(self._watch))
        except OSError as refused:
            if not self._silent:
                log.warning("drift.state_not_written", file=str(self._path), cause=refused.strerror)
            self._silent = True
        else:
            self._silent = False

    def _restore(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                content = file.read(_MOST)
        except FileNotFoundError:
            return
        except OSError as refused:
            log.warning("drift.state_refused", file=str(path), cause=refused.strerror or type(refused).__name__)
            return
        others: list[Whose] = []
        try:
            self._seen = _unpack(self._watch, content)
            return
        except _OtherError as refused:
            cause, reason, others = str(refused), refused.reason, refused.whose
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile):
            cause, reason = "it is damaged, or of another version", ""
        log.warning("drift.state_refused", file=str(path), cause=cause, effect="the detectors begin anew")
        self._watch.clear()
        for whose in others:
            self._watch.admit(whose)
            self._watch.resets(whose.replica, reason)


class _OtherError(ValueError):
    """A state of something else; `reason` as in `palegreen_drift_resets_total`."""

    def __init__(self, line: str, reason: str, whose: list[Whose]) -> None:
        super().__init__(line)
        self.reason, self.whose = reason, whose


def _packed(watch: Watch) -> bytes:
    arrays: dict[str, NDArray[Any]] = {}
    replicas = []
    for at, (name, replica) in enumerate(watch.replicas.items()):
        replicas.append(
            {"whose": list(watch.whose[name]), "alarms": [asdict(alarm) for alarm in replica.alarms.values()]}
        )
        for part, state in replica.state().items():
            arrays |= {f"{at}/{part}/{key}": array for key, array in state.items()}
    about = {
        "format": _FORMAT,
        "baseline": watch.model.manifest.id,
        "signature": watch.signature,
        "seen": watch.seen,
        "replicas": replicas,
    }
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]  # allow_pickle is no array
    return buffer.getvalue()


def _unpack(watch: Watch, content: bytes) -> int:
    """Restore a watch; how many samples it had seen. Raises ValueError and the like if it is not one of this watch."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        if about["format"] != _FORMAT:
            raise ValueError("another format")
        whose = [Whose(*map(str, each["whose"])) for each in about["replicas"]]
        mine = watch.model.manifest.id
        if about["baseline"] != mine:
            raise _OtherError(
                f"it is of the baseline {about['baseline'] or 'without id'}, not {mine}", "baseline", whose
            )
        if about["signature"] != watch.signature:
            raise _OtherError("the checks or segments that are watched have changed", "config", whose)
        parts: dict[str, dict[str, dict[str, NDArray[Any]]]] = defaultdict(lambda: defaultdict(dict))
        for key in arrays.files:
            if key != "about":
                at, part, name = key.split("/")
                parts[at][part][name] = arrays[key]
        for number, (each, said) in enumerate(zip(whose, about["replicas"], strict=True)):
            replica = watch.admit(each)
            replica.alarms = {alarm.channel: alarm for alarm in map(_alarm, said["alarms"])}
            replica.restore(parts[str(number)])
        watch.seen = int(about["seen"])
    return watch.seen


def _alarm(said: dict[str, Any]) -> Alarm:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return Alarm(**plain)


def _write(path: Path, content: bytes) -> None:
    """The file is there whole or as it was."""
    aside = path.with_name(f"{path.name}.new")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
