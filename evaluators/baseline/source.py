"""Recorded samples from where they lie: JSON lines, Parquet, or the evaluator's store; which it is, is seen."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.query import Filter, Reader, StoreError
from palegreen.evaluators.wire import jsonl
from palegreen.evaluators.wire.errors import WireError

_SQLITE, _PARQUET, _GZIP = b"SQLite format 3\0", b"PAR1", b"\x1f\x8b"


def samples(path: Path, since: float | None = None) -> Iterator[Sample]:
    """The samples of JSON lines (plain or gzip), of a Parquet file or folder of them, or of a store, in their order.

    `since` leaves out those before that time, epoch seconds, and those that have none; in a store all have one.

    Raises:
        BaselineError: the place cannot be read, or a record is not valid, named as `FILE:LINE`; or the records were
            scored by more than one embedder.
    """
    one = OneEmbedder()
    try:
        for where, record in _records(path, since):
            sample = jsonl.of_record(record, where)
            if since is not None and sample.time < since:
                continue
            if digest := embedder_of(record):
                one.saw(digest, where)
            yield sample
    except WireError as refused:
        raise BaselineError(str(refused)) from None


class OneEmbedder:
    """Refuses records that were scored by several embedders: what is kept of their scores is not of one geometry."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def saw(self, digest: str, where: str) -> None:
        """A record of that place was scored by it. Raises BaselineError if another one was by another."""
        self._seen.setdefault(digest, where)
        if len(self._seen) > 1:
            (one, first), (other, second) = self._seen.items()
            raise BaselineError(
                f"{second}: scored by the embedder {other[:12]}, {first} by {one[:12]}; "
                "allowed: samples of one embedder, see samples export --since"
            )


def embedder_of(record: dict[str, Any]) -> str:
    """The digest of the embedder by which a record was scored, empty if it does not say."""
    digest = record.get("embedder")
    return digest if isinstance(digest, str) else ""


def is_parquet(path: Path) -> bool:
    """Whether the place is a Parquet file, or a folder as of such. Raises BaselineError if it cannot be read."""
    with _readable(path):
        return path.is_dir() or _beginning(path).startswith(_PARQUET)


def _records(path: Path, since: float | None) -> Iterator[tuple[str, Any]]:
    """Each record with its place."""
    with _readable(path):
        if is_parquet(path):
            yield from _parquet(path)
        elif _beginning(path) == _SQLITE:
            yield from _store(path, since)
        else:
            with gzip.open(path) if _beginning(path).startswith(_GZIP) else path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        where = f"{path}:{number}"
                        yield where, jsonl.parsed(line, where)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as refused:
        cause = getattr(refused, "strerror", None) or refused
        raise BaselineError(f"{path}: cannot be read: {cause}; allowed: JSON lines, Parquet, or a store") from None


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
