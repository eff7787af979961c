"""A folder of baselines: each in a folder named by its contents, and `current`, a link to the one in use.

A baseline is written aside and renamed, so it is there whole or not at all; nothing changes it afterwards. What becomes
current leaves a line in `audit.jsonl`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.manifest import ARRAYS, CURRENT, NAME, Manifest, load, located
from palegreen.evaluators.contents import identity
from palegreen.evaluators.store.audit import append
from palegreen.runtime.yamlfile import ConfigError

AUDIT = "audit.jsonl"
_MOST = 256 << 20


class Saved(NamedTuple):
    """Where a baseline lies, and whether it was there already: the same samples give the same baseline."""

    folder: Path
    known: bool


def save(root: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> Saved:
    """Write a baseline into a folder of baselines. `id` and `arrays` of the manifest are filled in.

    Raises:
        BaselineError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(sorted(arrays.items())))  # type: ignore[arg-type]  # allow_pickle is no array
    said = manifest.model_dump(mode="json") | {"arrays": sha256(buffer.getvalue()).hexdigest()}
    said["id"] = identity(said)
    target = root / str(said["id"])
    staged = root / f".fit-{uuid.uuid4().hex}"
    try:
        if (root / NAME).exists():
            raise BaselineError(f"{root}: is itself a baseline; allowed: a folder that holds baselines")
        staged.mkdir(parents=True)
        _write(staged / ARRAYS, buffer.getvalue())
        _write(staged / NAME, json.dumps(said, indent=2).encode() + b"\n")
        try:
            staged.rename(target)
        except OSError:
            if not (target / NAME).exists():
                raise
            return Saved(target, True)
        _sync(root)
        return Saved(target, False)
    except OSError as refused:
        raise BaselineError(f"{root}: cannot be written: {refused.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def arrays_of(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a baseline, or of the current one of a folder of baselines, as `Features` and the detectors read
    them. Raises ConfigError, one line, also if they are not those that the manifest is of.
    """
    manifest = load(folder)
    path = located(folder) / ARRAYS
    try:
        with path.open("rb") as file:
            content = file.read(_MOST)
        if sha256(content).hexdigest() != manifest.arrays:
            raise ConfigError(f"{path}: is not what {NAME} is of; fit the baseline again")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError as refused:
        raise ConfigError(f"{path}: cannot be read: {refused.strerror or refused}") from None
    except (ValueError, zipfile.BadZipFile) as refused:
        raise ConfigError(f"{path}: holds no arrays: {' '.join(str(refused).split())}") from None


def current(root: Path) -> str:
    """The id of the current baseline, empty if there is none."""
    try:
        return (root / CURRENT).readlink().name
    except OSError:
        return ""


def promote(folder: Path) -> str:
    """Make a baseline the current one of the folder that it lies in; the id of the one before, empty if none was.

    Raises:
        BaselineError: it cannot be made so.
        ConfigError: it is no whole baseline.
        AuditError: the line cannot be written; nothing is changed.
    """
    if not (folder / NAME).exists() and (folder / CURRENT).exists():
        raise BaselineError(f"{folder}: holds many baselines; allowed: the folder of one, such as {folder}/ID")
    arrays_of(folder)
    folder = folder.resolve()
    root, manifest = folder.parent, load(folder)
    if manifest.id != folder.name:
        raise BaselineError(f"{folder}: is not named by its id, {manifest.id or 'none'}; allowed: what fit wrote")
    before = current(root)
    link = root / f".{CURRENT}-{uuid.uuid4().hex}"
    try:
        link.symlink_to(folder.name)
        what = {"baseline": manifest.id, "instead_of": before, "folder": str(root)}
        append(root / AUDIT, "baseline.promote", "promote", what, "nothing is promoted")
        link.replace(root / CURRENT)
        _sync(root)
    except OSError as refused:
        raise BaselineError(f"{root / CURRENT}: cannot be changed: {refused.strerror}") from None
    finally:
        with suppress(OSError):
            link.unlink()
    return before


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """A rename is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
