"""Recorded samples from where they lie: JSON lines, Parquet, or the evaluator's store; which it is, is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.query import Filter, Reader, StoreError
from palegreen.evaluators.wire import jsonl
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import loads

_SQLITE, _PARQUET = b"SQLite format 3\0", b"PAR1"


def samples(path: Path, since: float | None = None) -> Iterator[Sample]:
    """The samples of a file of JSON lines, of a Parquet file or folder of them, or of a store, in their order.

    `since` leaves out those before that time, epoch seconds, and those that have none; in a store all have one.

    Raises:
        BaselineError: the place cannot be read, or a record is not valid, named as `FILE:LINE`; or the records were
            scored by more than one embedder.
    """
    seen: dict[str, str] = {}
    try:
        for where, record in _records(path, since):
            sample = jsonl.of_record(record, where)
            if since is not None and sample.time < since:
                continue
            digest = record.get("embedder")
            if isinstance(digest, str) and digest:
                seen.setdefault(digest, where)
                if len(seen) > 1:
                    (one, first), (other, second) = seen.items()
                    raise BaselineError(
                        f"{second}: scored by the embedder {other[:12]}, {first} by {one[:12]}; "
                        "allowed: samples of one embedder, see samples export --since"
                    )
            yield sample
    except WireError as refused:
        raise BaselineError(str(refused)) from None


def _records(path: Path, since: float | None) -> Iterator[tuple[str, Any]]:
    """Each record with its place."""
    try:
        magic = b"" if path.is_dir() else _beginning(path)
        if path.is_dir() or magic.startswith(_PARQUET):
            yield from _parquet(path)
        elif magic == _SQLITE:
            yield from _store(path, since)
        else:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        where = f"{path}:{number}"
                        yield where, loads(line, where)
    except OSError as refused:
        raise BaselineError(
            f"{path}: cannot be read: {refused.strerror}; allowed: JSON lines, Parquet, or a store"
        ) from None


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_SQLITE))


def _store(path: Path, since: float | None) -> Iterator[tuple[str, Any]]:
    try:
        with Reader(path) as reader:
            wanted = Filter(since=since)
            _, last = reader.extent(wanted)
            for chunk in reader.chunks(wanted, last):
                for stored in chunk:
                    record = stored.record if since is None else {**stored.record, "time": stored.time}
                    yield f"{path}:@{stored.seq}", record
    except StoreError as refused:
        raise BaselineError(str(refused)) from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from palegreen.evaluators.store.parquet import ParquetError, read_parquet
    except ImportError:
        raise BaselineError(f"{path}: Parquet needs the extra parquet: pip install 'palegreen[parquet]'") from None
    try:
        yield from read_parquet(path)
    except ParquetError as refused:
        raise BaselineError(str(refused)) from None
