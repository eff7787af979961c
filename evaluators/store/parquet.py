"""Samples as Parquet, partitioned by date and model: written, and read again by fits and replays. Needs pyarrow."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.parquet import ParquetWriter

from palegreen.evaluators.store.export import ExportError, filesystem, is_url, refusals
from palegreen.evaluators.store.query import Stored

OPEN_FILES = 32
NAME_BYTES = 200  # of a partition's folder: names of models come from clients

_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int64()
_CALLS = pa.list_(pa.struct({"name": _TEXT, "arguments": _TEXT, "id": _TEXT}))
_MESSAGE = {"role": _TEXT, "content": _TEXT, "name": _TEXT, "tool_call_id": _TEXT, "tool_calls": _CALLS}
_SCORE = {"check": _TEXT, "passed": pa.bool_(), "score": _NUMBER, "why": _TEXT}
_JSON = ("tools", "response_format")
SCHEMA = pa.schema(
    {
        "id": _TEXT,
        "time": _NUMBER,
        **dict.fromkeys(("endpoint", "route", "replica", "session", "team", "trace_id"), _TEXT),
        "messages": pa.list_(pa.struct(_MESSAGE)),
        **dict.fromkeys(_JSON, _TEXT),
        "contexts": pa.list_(_TEXT),
        "response": _TEXT,
        "tool_calls": _CALLS,
        "finish_reason": _TEXT,
        "usage": pa.struct({"prompt_tokens": _COUNT, "completion_tokens": _COUNT}),
        "logprobs": pa.list_(_NUMBER),
        **dict.fromkeys(("mean_logprob", "ttft_seconds", "duration_seconds"), _NUMBER),
        "labels": pa.map_(_TEXT, _TEXT),
        **dict.fromkeys(("system_fingerprint", "sampled", "tap", "requested_model", "reasoning"), _TEXT),
        **dict.fromkeys(("choice", "reasoning_tokens", "cached_tokens", "status"), _COUNT),
        **dict.fromkeys(("error", "ended"), _TEXT),
        "truncated": pa.bool_(),
        "refused": pa.bool_(),
        "result": _TEXT,
        "scores": pa.list_(pa.struct(_SCORE)),
        **dict.fromkeys(("embedder", "feedback"), _TEXT),
    }
)
"""Columns of a file; `date` and `model` are in its path."""
_FOLDERS = ds.partitioning(pa.schema({"date": _TEXT, "model": _TEXT}), flavor="hive")


def write_parquet(chunks: Iterable[list[Stored]], out: str) -> None:
    """Write `OUT/date=YYYY-MM-DD/model=NAME/*.parquet` (dates in UTC); `out` is a folder or a URL that fsspec knows.

    Files have names of their own, so that several machines write to one place. They appear when all are whole.

    Raises:
        ExportError: the place cannot be written, or a sample does not fit the columns.
    """
    with refusals(out), (_bucket if is_url(out) else _folder)(out) as opened, _Files(opened) as files:
        for chunk in chunks:
            partitions = defaultdict[str, list[Stored]](list)
            for stored in chunk:
                partitions[_partition(stored)].append(stored)
            for partition, rows in partitions.items():
                files.write(partition, _table(rows))


class ParquetError(Exception):
    """A file or folder that cannot be read as Parquet; one line."""


def read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a file or of a folder of files, each with its place, see `pieces` and `records`."""
    for piece in pieces(path):
        yield from records(piece)


class Piece(NamedTuple):
    """A row group of a file, and how many rows of the file come before it. Another machine can read it."""

    fragment: ds.ParquetFileFragment
    before: int


def pieces(path: Path) -> list[Piece]:
    """What a file or a folder of files consists of, in the order of reading. Raises ParquetError."""
    found = []
    with _parquet(str(path)):
        dataset = ds.dataset(path, format="parquet", partitioning=_FOLDERS)
        for file in sorted(dataset.get_fragments(), key=lambda file: file.path):
            before = 0
            for fragment in file.split_by_row_group():
                found.append(Piece(fragment, before))
                before += sum(group.num_rows for group in fragment.row_groups)
    return found


def records(piece: Piece) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a piece, each with its place, `FILE:row N`; what is unknown is left out.

    A model that only the folder's name tells (`model=NAME`) is part of the record. Raises ParquetError.
    """
    fragment, row = piece
    with _parquet(fragment.path):
        model = ds.get_partition_keys(fragment.partition_expression).get("model")
        for batch in fragment.to_batches(batch_size=1024):
            for columns in batch.to_pylist():
                row += 1
                yield f"{fragment.path}:row {row}", _record({**columns, "model": columns.get("model") or model})


@contextmanager
def _parquet(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as refused:
        raise ParquetError(f"{path}: cannot be read as Parquet: {' '.join(str(refused).split())}") from None


def _record(columns: dict[str, Any]) -> dict[str, Any]:
    """A row as `_row` made it of a record. JSON that is damaged stays text, and its reader says so."""
    record = {name: value for name, value in columns.items() if value is not None}
    for name in _JSON:
        if isinstance(text := record.get(name), str):
            with suppress(ValueError):
                record[name] = json.loads(text)
    if isinstance(record.get("labels"), list):  # a map's entries
        record["labels"] = dict(record["labels"])
    return record


class _Files:
    """One file a partition; the one written longest ago is closed where there are too many, and has a successor."""

    def __init__(self, opened: Callable[[str], IO[bytes]]) -> None:
        self._opened = opened
        self._open: OrderedDict[str, ExitStack] = OrderedDict()
        self._writers: dict[str, ParquetWriter] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close()

    def write(self, partition: str, table: pa.Table) -> None:
        """Append a row group."""
        if partition not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._close()
            closing = self._open[partition] = ExitStack()
            file = closing.enter_context(self._opened(f"{partition}/{uuid.uuid4().hex}.parquet"))
            self._writers[partition] = closing.enter_context(ParquetWriter(file, SCHEMA, compression="zstd"))
        self._open.move_to_end(partition)
        self._writers[partition].write_table(table)

    def _close(self) -> None:
        partition, closing = self._open.popitem(last=False)
        del self._writers[partition]
        closing.close()


@contextmanager
def _folder(out: str) -> Iterator[Callable[[str], IO[bytes]]]:
    """Files are written in a hidden folder of the place and then moved; readers of datasets pass such folders over."""
    root = Path(out)
    if root.exists() and not root.is_dir():
        raise ExportError(f"{out}: is a file; allowed: a folder")
    staged = root / f".export-{uuid.uuid4().hex}"
    staged.mkdir(parents=True)

    def opened(name: str) -> IO[bytes]:
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    try:
        yield opened
        for path in sorted(staged.rglob("*.parquet")):
            target = root / path.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _bucket(out: str) -> Iterator[Callable[[str], IO[bytes]]]:
    files, root = filesystem(out)
    with files.transaction:
        yield lambda name: files.open(f"{root.rstrip('/')}/{name}", "wb")


def _partition(stored: Stored) -> str:
    date = datetime.fromtimestamp(stored.time, UTC).date().isoformat()
    model = quote(stored.model, safe="") or "_none_"
    return f"date={date}/model={model if len(model) <= NAME_BYTES else '_other_'}"


def _table(rows: list[Stored]) -> pa.Table:
    try:
        return pa.Table.from_pylist([_row(stored) for stored in rows], SCHEMA)
    except (pa.ArrowException, OverflowError) as refused:
        place = f"one of the samples @{rows[0].seq} to @{rows[-1].seq}"
        raise ExportError(f"{place} does not fit the columns: {' '.join(str(refused).split())}") from None


def _row(stored: Stored) -> dict[str, Any]:
    row = {**stored.record, "time": stored.time, "result": stored.result}
    for name in _JSON:
        if name in row:
            row[name] = json.dumps(row[name], ensure_ascii=False)
    scores = row.get("scores") or {}
    row["scores"] = [{"check": check, **score} for check, score in scores.items() if score is not None]
    return row
