"""Samples out of the store: JSON lines to a file, standard output or a bucket; Parquet is in `parquet`."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from palegreen.evaluators.store.query import Stored, StoreError


class ExportError(Exception):
    """A place that cannot be written; one line."""


def writer(form: str, out: str) -> Callable[[Iterable[list[Stored]], str], None]:
    """What writes a format, `jsonl` or `parquet`. Raises ExportError if the format or place cannot be had."""
    if is_url(out):
        filesystem(out)
    if form == "jsonl":
        return write_lines
    if out == "-":
        raise ExportError("--format parquet makes a folder of files; allowed: --out DIR or a URL")
    try:
        from palegreen.evaluators.store.parquet import write_parquet
    except ImportError:
        raise ExportError("--format parquet needs the extra parquet: pip install 'palegreen[parquet]'") from None
    return write_parquet


def write_lines(chunks: Iterable[list[Stored]], out: str) -> None:
    """Write one JSON object a sample to a file, `-` or a URL that fsspec knows.

    A file is there whole or not at all.

    Raises:
        ExportError: the place cannot be written.
    """
    with _opened(out) as file:
        for chunk in chunks:
            file.writelines(json.dumps(stored.record, ensure_ascii=False).encode() + b"\n" for stored in chunk)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Raises ExportError."""
    try:
        import fsspec
    except ImportError:
        raise ExportError(f"{url}: needs the extra parquet: pip install 'palegreen[parquet]'") from None
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]  # fsspec ships no types
    except (ImportError, ValueError, OSError) as refused:  # the package of that cloud is not installed, or no such
        raise ExportError(f"{url}: {_one_line(refused)}") from None


def is_url(out: str) -> bool:
    """Whether the place is a URL rather than a local path."""
    return "://" in out and not out.startswith("file://")


@contextmanager
def refusals(out: str) -> Iterator[None]:
    """Turn what a place refuses into ExportError; a reader of standard output that went away is none."""
    try:
        yield
    except (ExportError, StoreError, BrokenPipeError):
        raise
    except OSError as refused:
        raise ExportError(f"{out}: {refused.strerror or _one_line(refused)}") from None
    except Exception as refused:  # each cloud's package has errors of its own
        if not is_url(out):
            raise
        raise ExportError(f"{out}: {_one_line(refused)}") from None


@contextmanager
def _opened(out: str) -> Iterator[IO[bytes]]:
    with refusals(out):
        if out == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif is_url(out):
            files, path = filesystem(out)
            with files.transaction, files.open(path, "wb") as file:
                yield file
        else:
            with _replacing(Path(out)) as file:
                yield file


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when it is whole; a device or a pipe is written as it is."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with path.open("wb") as special:
            yield special
        return
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:  # mode 0600
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)  # noqa: PTH105
        except BaseException:
            with suppress(OSError):
                os.unlink(file.name)  # noqa: PTH108
            raise


def _one_line(failure: BaseException) -> str:
    return " ".join(str(failure).split())
