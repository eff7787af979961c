"""Redaction and embedding on Ray Data, over Parquet that its workers read themselves.

A piece of a file is read and redacted by one worker, and a batch embedded by one; what they give is collected in order.
What a worker refuses comes back as its line, so that the first in order is told, as it would be here.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

# Ray reads these as it is imported: nothing is reported to its makers, its own log is not mixed into ours, and a
# cluster that is started here listens on the loopback interface alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
import ray.data
from ray.exceptions import RayError

from palegreen.evaluators.baseline.engine import batches
from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.source import OneEmbedder, embedder_of, is_parquet
from palegreen.evaluators.config import EvaluateConfig, RedactionConfig
from palegreen.evaluators.embed import choose
from palegreen.evaluators.embed.embedder import Embedder, EmbedderError
from palegreen.evaluators.embed.parts import VectorsOf, embedded_parts, vectors_of
from palegreen.evaluators.redact.redactor import Redactor, with_names
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.parquet import ParquetError, Piece, pieces, records
from palegreen.evaluators.wire import jsonl
from palegreen.evaluators.wire.errors import WireError


class Work(NamedTuple):
    """What a worker is to do as this process would: `key` is that of the hashes which stand for ids."""

    version: str
    embedder: str
    digest: str
    threads: int
    redaction: str
    key: bytes


class Read(NamedTuple):
    """A piece, read and redacted, up to what was `refused` in it; where each `embedder` was first named."""

    samples: list[Sample]
    embedders: dict[str, str]
    refused: str = ""


class Cluster:
    """An engine, see `engine.Engine`: the cluster of RAY_ADDRESS, the one that this process is in, or one of its own.

    It is joined when there is something to do, and left at the end.
    """

    def __init__(self, embedder: Embedder, settings: EvaluateConfig) -> None:
        self.embedder = embedder
        self._work = Work(
            version("palegreen"),
            embedder.name,
            embedder.digest,
            settings.scorer_threads,
            with_names(settings.redaction).model_dump_json(),
            secrets.token_bytes(32),
        )
        self._joined = False

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._joined:
            ray.shutdown()

    def redacted(self, source: Path, since: float | None = None) -> Iterator[Sample]:
        """See `engine.Engine`. Raises BaselineError also if the place is not Parquet."""
        if not is_parquet(source):
            raise BaselineError(
                f"{source}: --engine ray reads Parquet alone; allowed: a file or folder as samples export "
                "--format parquet writes it, or --engine local"
            )
        try:
            asked = [(piece, since) for piece in pieces(source)]
        except ParquetError as refused:
            raise BaselineError(str(refused)) from None
        one = OneEmbedder()
        for read in self._map(_read, asked, 1):
            for digest, where in read.embedders.items():
                one.saw(digest, where)
            yield from read.samples
            if read.refused:
                raise BaselineError(read.refused)

    def embedded(self, samples: Sequence[Sample]) -> Iterator[list[VectorsOf]]:
        """See `engine.Engine`."""
        texts = ([embedded_parts(sample) for sample in batch] for batch in batches(samples))
        for vectors in self._map(_embedded, texts, self._work.threads):
            if isinstance(vectors, str):
                raise BaselineError(vectors)
            yield vectors

    def _map(self, function: Callable[[Any, Work], Any], items: Iterable[Any], cpus: int) -> Iterator[Any]:
        """What workers make of items, in order; each call takes so many CPUs."""
        rows = [{"item": pickle.dumps(item)} for item in items]
        if not rows:
            return
        self._join()
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        most = max(node["Resources"].get("CPU", 1) for node in nodes if node["Alive"])
        try:
            blocks = ray.data.from_items(rows, override_num_blocks=len(rows))
            done = blocks.map(partial(_done, function=function, work=self._work), num_cpus=min(cpus, most))
            for row in done.iter_rows():
                yield pickle.loads(row["item"])  # noqa: S301  # of our own workers
        except RayError as failure:
            raise BaselineError(f"--engine ray: a worker failed: {_cause(failure)}") from None

    def _join(self) -> None:
        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS") or "local"
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as failure:
                raise BaselineError(f"--engine ray: {address}: {_cause(failure)}") from None
            self._joined = True
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True


def _cause(failure: Exception) -> str:
    """The last line of what Ray says of the first failure, the others being what came of it."""
    first, _, _ = str(failure).partition("The above exception was the direct cause")
    lines = [line.strip() for line in first.splitlines() if line.strip()]
    return lines[-1] if lines else type(failure).__name__


def _done(row: dict[str, bytes], function: Callable[[Any, Work], Any], work: Work) -> dict[str, bytes]:
    """One item, in a worker."""
    return {"item": pickle.dumps(function(pickle.loads(row["item"]), work))}  # noqa: S301  # of the command


def _read(asked: tuple[Piece, float | None], work: Work) -> Read:
    (piece, since), found = asked, Read([], {})
    if (here := version("palegreen")) != work.version:
        return found._replace(refused=f"--engine ray: a worker has palegreen {here}; allowed: {work.version}, as here")
    redactor = _redactor(work.redaction, work.key)
    try:
        for where, record in records(piece):
            sample = jsonl.of_record(record, where)
            if since is not None and sample.time < since:
                continue
            if digest := embedder_of(record):
                found.embedders.setdefault(digest, where)
            found.samples.append(redactor.sample(sample))
    except (ParquetError, WireError) as refused:
        return found._replace(refused=str(refused))
    return found


def _embedded(samples: list[Sample], work: Work) -> list[VectorsOf] | str:
    try:
        embedder = _embedder(work.embedder, work.threads)
    except EmbedderError as refused:
        return str(refused)
    if embedder is None or embedder.digest != work.digest:
        return f"--engine ray: a worker has another embedder {work.embedder}; allowed: {work.digest[:12]}, as here"
    return vectors_of(embedder, samples)


@lru_cache(maxsize=1)
def _redactor(redaction: str, key: bytes) -> Redactor:
    return Redactor(RedactionConfig.model_validate_json(redaction), key)


@lru_cache(maxsize=1)
def _embedder(name: str, threads: int) -> Embedder | None:
    return choose.embedder(name, threads)
