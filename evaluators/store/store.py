"""The store: samples and their scores in SQLite, written by the scorer alone.

Nothing here raises because of the file: what cannot be written is counted and logged once, and scoring goes on.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson
import structlog

from palegreen.evaluators.store import aside, schema, trouble
from palegreen.evaluators.store.clock import SteadyClock
from palegreen.evaluators.store.scored import Scored

T = TypeVar("T")

RETRY_SECONDS = 5.0
BUSY_SECONDS = 0.25  # how long a batch may wait for another writer or a reader
STEP_BYTES = 1 << 20  # what one step of the retention deletes at most, beyond twice what comes in
STEP_PAGES = 1024  # pages that one step gives back to the file system
SLACK = 16  # the part of the size that is left free, so that pages are used again rather than given back
CHECKPOINT_PAGES = 4000  # a commit in so many pages waits for the disk
WAL_MOST = 64 << 20
ROW_BYTES = 400  # columns and index entries of a sample, about
_CHOICES = 32  # of a response, that are looked through for one
YEAR_10000 = 253_402_300_800.0

_INSERT = "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
log = structlog.get_logger()


class Counts(NamedTuple):
    """`samples` is None while the store cannot be read; `bytes` is the size of its files; `lost` is by reason."""

    samples: int | None
    bytes: int
    lost: dict[str, int]


class Labels(NamedTuple):
    """What a feedback has to know of the sample that it is for."""

    model: str
    endpoint: str
    replica: str
    session: str
    trace_id: str


class Store:
    """Samples with their scores, in the order of storing; the oldest go by age and by size. For one thread.

    Args:
        path: the database, made with mode 0600 if it is not there.
        max_age_seconds: samples go when they have been stored for this time.
        max_bytes: the oldest go while the file and its write-ahead log are larger; one batch may exceed it.
        clock: epoch seconds.
        steady: seconds that only go forward.
    """

    def __init__(
        self,
        path: Path,
        max_age_seconds: float,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._max_age = max_age_seconds
        self._max_bytes = max_bytes
        self._wall = clock
        self._steady = steady
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._clock = SteadyClock(None, clock, steady)
        self._retry_at = -math.inf
        self._failing = False
        self._lost: dict[str, int] = {}
        self._reason: trouble.Reason = "other"
        self._guarded(lambda _: None, 0)

    def add(self, batch: Sequence[Scored]) -> None:
        """Store a batch in one transaction: all of it or, counted, nothing."""
        if batch:
            self._guarded(lambda connection: self._write(connection, batch), len(batch))

    def attach_feedback(self, response_id: str, kind: str) -> Labels | None:
        """Note a user's feedback on the newest sample of that response; what it was, None if it is not there.

        Later feedback takes the place of earlier.
        """
        return self._guarded(lambda connection: _attach(connection, response_id, kind), 0)

    def attach_score(self, response_id: str, choice: int, name: str, entry: dict[str, Any]) -> bool:
        """Note a score that came later on the newest such choice; False if it is not there (any more)."""
        return bool(self._guarded(lambda connection: _attach_score(connection, response_id, choice, name, entry), 0))

    def expire(self) -> bool:
        """Delete what is too old or too much and give room back, a bounded step; whether there is more to do.

        `add` deletes too. This is for every few seconds, so that samples go and files shrink when none come.
        """
        return bool(self._guarded(self._tidy, 0))

    def counts(self) -> Counts:
        """What is in the store, how large it is, and how many samples were lost."""
        samples = self._guarded(_count, 0)
        return Counts(samples, _size(self._path) + _size(self._wal), dict(self._lost))

    def close(self) -> None:
        """Close the file; the write-ahead log is taken into it."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _guarded(self, work: Callable[[sqlite3.Connection], T], samples: int) -> T | None:
        """The result of `work`; None if the store is in trouble, which is counted for that many samples."""
        if self._connection is None and self._steady() < self._retry_at:
            self._lose(samples, self._reason)
            return None
        try:
            result = work(self._opened())
        except trouble.Trouble as failure:
            self._fail(failure)
            self._lose(samples, self._reason)
            return None
        if self._failing:
            self._failing = False
            log.info("store.recovered", path=str(self._path), lost=sum(self._lost.values()))
        return result

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and _inode(self._path) == self._inode:
            return self._connection
        self.close()  # a file that was removed or replaced would go on being written to where nobody sees it
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # it holds texts
        aside.forget(self._path, before=self._wall() - self._max_age)
        connection = sqlite3.connect(
            schema.location(self._path, "mode=rw"), uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            schema.begin(connection)
            pages = max(16, min(CHECKPOINT_PAGES, self._max_bytes // (16 * 4096)))
            connection.execute(f"PRAGMA wal_autocheckpoint={pages}")
            connection.execute(f"PRAGMA journal_size_limit={pages * 4096}")
            newest = connection.execute("SELECT stored FROM samples ORDER BY seq DESC LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        self._clock = SteadyClock(newest[0] if newest else None, self._wall, self._steady)
        self._inode = _inode(self._path)
        self._connection = connection
        return connection

    def _fail(self, failure: Exception) -> None:
        self._reason = trouble.reason(failure)
        self.close()
        self._retry_at = self._steady() + RETRY_SECONDS
        problem = trouble.said(failure)
        if trouble.broken(failure):
            try:
                moved = aside.put_aside(self._path, self._wall())
                problem += f"; moved to {moved.name}, a new one is begun"
                self._retry_at = -math.inf
            except OSError as refused:
                problem += f"; it cannot be moved aside: {refused.strerror}"
        if not self._failing:
            self._failing = True
            log.error("store.failed", path=str(self._path), reason=self._reason, problem=problem)

    def _lose(self, samples: int, reason: trouble.Reason) -> None:
        if samples:
            self._lost[reason] = self._lost.get(reason, 0) + samples

    def _write(self, connection: sqlite3.Connection, batch: Sequence[Scored]) -> None:
        self._bound_wal(connection)
        recorded = [(scored, record) for scored in batch if (record := _encoded(scored.record())) is not None]
        now = self._clock.now()
        with _Transaction(connection):
            self._expire(connection, now, sum(len(record) + ROW_BYTES for _, record in recorded))
            first = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'samples'").fetchone()
            seq = first[0] + 1 if first else 1
            rows = [_row(seq + at, now, scored, record) for at, (scored, record) in enumerate(recorded)]
            connection.executemany(_INSERT, rows)
            failures = [
                (_text(name), row[2], row[0])
                for row, (scored, _) in zip(rows, recorded, strict=True)
                for name in scored.failed
            ]
            connection.executemany("INSERT INTO failures VALUES (?, ?, ?)", failures)
        self._lose(len(batch) - len(recorded), "other")

    def _tidy(self, connection: sqlite3.Connection) -> bool:
        with _Transaction(connection):
            gone, more = self._expire(connection, self._clock.now(), 0)
        page, pages, free = _pages(connection)
        shrinks = free > 0 and (pages * page > self._max_bytes or free > pages // 4 + STEP_PAGES)
        if shrinks:  # as a script: only that runs the pragma to its end
            connection.executescript(f"PRAGMA incremental_vacuum({STEP_PAGES})")
        if gone or shrinks:  # deleted texts go from the log too
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return more or shrinks

    def _expire(self, connection: sqlite3.Connection, now: float, incoming: int) -> tuple[int, bool]:
        """Delete from the oldest on. How many went, and whether it stopped for having done enough."""
        page, pages, free = _pages(connection)
        target = self._max_bytes - self._max_bytes // SLACK - _size(self._wal)
        excess, allowed = (pages - free) * page + incoming - target, 2 * incoming + STEP_BYTES
        horizon = now - self._max_age
        freed, gone, more = 0, [], False
        oldest = connection.execute("SELECT seq, stored, time, failed, length(record) FROM samples ORDER BY seq")
        for seq, stored, at, failed, size in oldest:
            if stored >= horizon and freed >= excess:
                break
            if freed >= allowed:
                more = True
                break
            freed += size + ROW_BYTES
            gone.append((seq, at, failed))
        oldest.close()
        if gone:
            entries = [(name, at, seq) for seq, at, failed in gone for name in failed.split(",") if name]
            connection.executemany("DELETE FROM failures WHERE name = ? AND time = ? AND seq = ?", entries)
            connection.execute("DELETE FROM samples WHERE seq <= ?", (gone[-1][0],))
        return len(gone), more

    def _bound_wal(self, connection: sqlite3.Connection) -> None:
        if _size(self._wal) <= WAL_MOST:
            return
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise trouble.HeldError("a reader holds the write-ahead log, which is as large as it may be")


class _Transaction:
    """BEGIN IMMEDIATE, and COMMIT or ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _row(seq: int, now: float, scored: Scored, record: bytes) -> tuple[Any, ...]:
    sample = scored.sample
    at = sample.time if 0 < sample.time < YEAR_10000 else now  # unknown, or no time of day
    texts: Iterable[str] = (
        *(sample.id, sample.trace_id, sample.model, sample.endpoint, sample.replica, sample.session, sample.sampled),
        *(scored.result, sample.finish_reason, ",".join(scored.failed)),
    )
    return (seq, now, at, *map(_text, texts), None, record)


def _text(value: str) -> str:
    """The text without halves of surrogate pairs, which have no UTF-8."""
    return value if value.isascii() else value.encode(errors="replace").decode()


def _encoded(record: dict[str, Any]) -> bytes | None:
    """The record as JSON; None if it is nested more deeply than JSON is read anywhere."""
    try:
        return orjson.dumps(record)
    except orjson.JSONEncodeError:  # half a surrogate pair, an integer beyond 64 bits, more than 250 levels
        try:
            return json.dumps(record, ensure_ascii=False).encode(errors="replace")
        except RecursionError:
            return None


def _attach(connection: sqlite3.Connection, response_id: str, kind: str) -> Labels | None:
    found = connection.execute(
        "UPDATE samples SET feedback = ? WHERE seq = (SELECT max(seq) FROM samples WHERE id = ? AND id != '')"
        " RETURNING model, endpoint, replica, session, trace_id",
        (kind, _text(response_id)),
    ).fetchall()
    return Labels(*found[0]) if found else None


def _attach_score(
    connection: sqlite3.Connection, response_id: str, choice: int, name: str, entry: dict[str, Any]
) -> bool:
    rows = connection.execute(
        "SELECT seq, record FROM samples WHERE id = ? AND id != '' ORDER BY seq DESC LIMIT ?",
        (_text(response_id), _CHOICES),
    )
    for seq, text in rows.fetchall():
        record = json.loads(text)
        if (record.get("choice") or 0) != choice:
            continue
        record["scores"] = {**(record.get("scores") or {}), name: entry}
        connection.execute("UPDATE samples SET record = ? WHERE seq = ?", (_encoded(record), seq))
        return True
    return False


def _pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Bytes of a page, pages, and how many of them are free."""
    size, pages, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return size, pages, free


def _count(connection: sqlite3.Connection) -> int:
    first, last = connection.execute(
        "SELECT (SELECT seq FROM samples ORDER BY seq LIMIT 1), (SELECT seq FROM samples ORDER BY seq DESC LIMIT 1)"
    ).fetchone()
    return 0 if first is None else int(last - first + 1)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
