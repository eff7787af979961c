"""What hinders the store, in the words of palegreen_store_errors_total."""

from __future__ import annotations

import errno
import sqlite3
from typing import Literal

from palegreen.evaluators.store.schema import ForeignError

Reason = Literal["full", "readonly", "corrupt", "other"]

_ERRNO: dict[int | None, Reason] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EACCES: "readonly",
    errno.EPERM: "readonly",
}
_SQLITE: dict[int, Reason] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_IOERR_SHMSIZE: "full",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
}


class HeldError(Exception):
    """The write-ahead log cannot be emptied, because a reader holds it."""


Trouble = (sqlite3.Error, OSError, ForeignError, HeldError)


def reason(failure: Exception) -> Reason:
    """The label of a failure."""
    if isinstance(failure, sqlite3.Error):
        code = _code(failure)
        return _SQLITE.get(code) or _SQLITE.get(code & 0xFF, "other")
    return _ERRNO.get(failure.errno, "other") if isinstance(failure, OSError) else "other"


def broken(failure: Exception) -> bool:
    """Whether the file is a database whose content is damaged; a file that is none is somebody else's."""
    return isinstance(failure, sqlite3.Error) and _code(failure) & 0xFF == sqlite3.SQLITE_CORRUPT


def said(failure: Exception) -> str:
    """The failure in a few words, without texts of users: SQLite's messages quote none."""
    if isinstance(failure, OSError):
        return failure.strerror or str(failure)
    return str(failure)


def _code(failure: sqlite3.Error) -> int:
    return getattr(failure, "sqlite_errorcode", None) or 0
