"""Reading the store while the scorer writes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from palegreen.evaluators.store import schema, trouble
from palegreen.runtime.quantity import seconds

BUSY_SECONDS = 5.0
FOUND = 50  # samples of one name: clients and engines may give all of theirs the same
CHUNK_ROWS = 4096
CHUNK_BYTES = 16 << 20
ANY = ""
"""`Filter.failed`: any check."""

_COLUMNS = ("seq", "time", "id", "model", "endpoint", "replica", "sampled", "result", "failed", "feedback", "record")
_SELECTED = ", ".join(f"s.{column}" for column in _COLUMNS)


class StoreError(Exception):
    """A store that cannot be read; one line."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which samples; None means all. Times are epoch seconds, `since` included and `until` not."""

    since: float | None = None
    until: float | None = None
    model: str | None = None
    endpoint: str | None = None
    replica: str | None = None
    session: str | None = None
    failed: str | None = None
    sampled: str | None = None

    def given(self) -> dict[str, Any]:
        """What is asked for, by name."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(slots=True)
class Stored:
    """A sample of the store. `reference` names it also where it has no id; `record` is the line it was recorded as."""

    seq: int
    time: float
    id: str
    model: str
    endpoint: str
    replica: str
    sampled: str
    result: str
    failed: list[str]
    feedback: str | None
    size: int
    record: dict[str, Any] = field(repr=False)

    @property
    def reference(self) -> str:
        """What `samples show` takes."""
        return self.id or f"@{self.seq}"


def moment(text: str, now: float) -> float:
    """Epoch seconds of a time (RFC 3339, UTC where it names no zone) or of a duration before now. Raises ValueError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    try:
        return now - seconds(text)
    except ValueError:
        raise ValueError(f"got {text!r}; allowed: a duration such as 90s, 1h or 2d, or a time in RFC 3339") from None


class Reader:
    """A connection that only reads; `warning` says if it does not see everything.

    Raises:
        StoreError: the file cannot be opened, is no store, is damaged or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.warning = ""
        self._connection = self._opened("mode=ro")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def newest(self, wanted: Filter, limit: int) -> list[Stored]:
        """The newest samples first."""
        table, where, values = _where(wanted)
        rows = self._rows(f"{table} {where} ORDER BY {_order(wanted, 'DESC')} LIMIT ?", (*values, limit))
        return [_stored(row) for row in rows]

    def find(self, name: str) -> list[Stored]:
        """Samples by response id, `@NUMBER` or trace id, the newest first."""
        if name.startswith("@") and name[1:].isdecimal():
            return [_stored(row) for row in self._rows("samples s WHERE s.seq = ?", (min(int(name[1:]), 2**63 - 1),))]
        rows = self._rows(f"samples s WHERE s.id = ? AND s.id != '' ORDER BY s.seq DESC LIMIT {FOUND}", (name,))
        # no index: a trace id is asked for by people, and an index of it would cost each sample
        rows = rows or self._rows(
            f"samples s WHERE s.trace_id = ? AND s.trace_id != '' ORDER BY s.seq DESC LIMIT {FOUND}", (name,)
        )
        return [_stored(row) for row in rows]

    def extent(self, wanted: Filter) -> tuple[int, int]:
        """How many samples there are, and the number of the last one stored so far."""
        table, where, values = _where(wanted)
        count, last = self._fetch(f"SELECT count(*), coalesce(max(s.seq), 0) FROM {table} {where}", values)[0]  # noqa: S608
        return count, last

    def chunks(self, wanted: Filter, last: int) -> Iterator[list[Stored]]:
        """Samples up to number `last`, the oldest first, some thousand or `CHUNK_BYTES` at a time.

        Each chunk is a transaction of its own, so that a long export does not hold the writer's log.
        """
        table, where, values = _where(wanted)
        order = _order(wanted)
        where = f"{where} AND s.seq <= ? AND ({order}) > (?, ?) ORDER BY {order} LIMIT {CHUNK_ROWS}"
        at: tuple[float, int] = (float("-inf"), 0)
        while chunk := self._chunk(f"{table} {where}", (*values, last, *at)):
            yield chunk
            at = (chunk[-1].time, chunk[-1].seq)

    def _chunk(self, what: str, values: Sequence[Any]) -> list[Stored]:
        chunk, size = [], 0
        try:
            cursor = self._connection.execute(f"SELECT {_SELECTED} FROM {what}", values)  # noqa: S608
            for row in cursor:
                chunk.append(_stored(row))
                size += chunk[-1].size
                if size >= CHUNK_BYTES:
                    break
            cursor.close()
        except sqlite3.Error as failure:
            raise self._error(failure) from None
        return chunk

    def _rows(self, what: str, values: Sequence[Any]) -> list[Any]:
        return self._fetch(f"SELECT {_SELECTED} FROM {what}", values)  # noqa: S608

    def _fetch(self, statement: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as failure:
            raise self._error(failure) from None

    def _opened(self, parameters: str) -> sqlite3.Connection:
        connection = None
        try:
            connection = sqlite3.connect(
                schema.location(self._path, parameters), uri=True, timeout=BUSY_SECONDS, isolation_level=None
            )
            schema.verify(connection)
        except trouble.Trouble as failure:
            if connection is not None:
                connection.close()
            if getattr(failure, "sqlite_errorcode", None) == sqlite3.SQLITE_CANTOPEN and parameters == "mode=ro":
                return self._frozen()
            raise self._error(failure) from None
        return connection

    def _frozen(self) -> sqlite3.Connection:
        """A store in a folder that cannot be written and that no scorer has open: what is in its log is not seen."""
        with suppress(OSError):
            if self._path.with_name(f"{self._path.name}-wal").stat().st_size:
                self.warning = f"{self._path}: the newest samples are left out: the folder cannot be written"
        return self._opened("mode=ro&immutable=1")

    def _error(self, failure: Exception) -> StoreError:
        return StoreError(f"{self._path}: {trouble.said(failure)}")


def _order(wanted: Filter, direction: str = "") -> str:
    """By time, then by number; `failures` has its own copy of both, in that order."""
    table = "f" if wanted.failed else "s"
    return f"{table}.time {direction}, {table}.seq {direction}"


def _where(wanted: Filter) -> tuple[str, str, list[Any]]:
    """Table, condition and its values."""
    table, conditions, values = "samples s", ["true"], list[Any]()
    if wanted.failed:
        table = "failures f JOIN samples s ON s.seq = f.seq"
        conditions.append("f.name = ?")
        values.append(wanted.failed)
    elif wanted.failed == ANY:
        conditions.append("s.result = 'fail'")
    at = _order(wanted).partition(" ")[0]
    equal = ("model", "endpoint", "replica", "session", "sampled")
    terms = {f"{at} >= ?": wanted.since, f"{at} < ?": wanted.until}
    terms |= {f"s.{name} = ?": getattr(wanted, name) for name in equal}
    given = {term: value for term, value in terms.items() if value is not None}
    return table, "WHERE " + " AND ".join([*conditions, *given]), [*values, *given.values()]


def _stored(row: tuple[Any, ...]) -> Stored:
    named: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    text = named["record"]
    try:
        named["record"] = json.loads(text)
    except (ValueError, RecursionError):
        raise StoreError(f"sample @{named['seq']} is damaged") from None
    if named["feedback"] is not None:
        named["record"]["feedback"] = named["feedback"]
    return Stored(**{**named, "failed": named["failed"].split(",") if named["failed"] else []}, size=len(text))
