"""Tables of the store, and the connections to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

APPLICATION = 0x50477231  # "PGr1", in the file's header: whose database it is
VERSION = 1

# `seq` counts samples in the order of storing and never comes again; rows go only from its lower end, so that the
# number of samples is a difference. `stored` is the store's own time. `record` is the recorded sample with its
# scores, as JSON: what is queried has columns of its own. `failed` holds the names of the failed checks, between
# commas; `failures` finds samples by them.
_TABLES = """
CREATE TABLE samples (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  stored REAL NOT NULL,
  time REAL NOT NULL,
  id TEXT NOT NULL,
  trace_id TEXT NOT NULL,
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  replica TEXT NOT NULL,
  session TEXT NOT NULL,
  sampled TEXT NOT NULL,
  result TEXT NOT NULL,
  finish_reason TEXT NOT NULL,
  failed TEXT NOT NULL,
  feedback TEXT,
  record BLOB NOT NULL
);
CREATE INDEX samples_time ON samples (time);
CREATE INDEX samples_failed ON samples (time) WHERE result = 'fail';
CREATE INDEX samples_id ON samples (id) WHERE id != '';
CREATE TABLE failures (
  name TEXT NOT NULL,
  time REAL NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (name, time, seq)
) WITHOUT ROWID;
"""


class ForeignError(Exception):
    """A database that is not ours, or of a newer version; one line. Nothing in it is touched."""


def begin(connection: sqlite3.Connection) -> None:
    """Make the tables of a database that has none.

    Raises:
        ForeignError: the database is another program's, or of a newer version.
        sqlite3.Error: it cannot be read or written.
    """
    if not _known(connection):
        connection.executescript(
            f"PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; BEGIN IMMEDIATE; {_TABLES}"
            f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT"
        )
    # Deleted texts are overwritten; a commit is safe from a kill of the process, not each from a loss of power.
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON")


def verify(connection: sqlite3.Connection) -> None:
    """Raise ForeignError if this is no store, and sqlite3.Error if it cannot be read."""
    if not _known(connection):
        raise ForeignError("is an empty database")


def location(path: Path, parameters: str) -> str:
    """The URI by which sqlite3 opens a file."""
    return f"{path.absolute().as_uri()}?{parameters}"


def _known(connection: sqlite3.Connection) -> bool:
    """Whether the store's tables are there."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application == APPLICATION:
        if version > VERSION:
            raise ForeignError(f"has schema {version} of a newer Palegreen; allowed: up to {VERSION}")
        return True
    if not empty or application or version:
        raise ForeignError("is a database of another program")
    return False
