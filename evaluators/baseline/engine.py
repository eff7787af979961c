"""Where recorded samples are redacted and embedded, nearly all that a fit or a backtest costs: here, or on Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.source import samples
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed.embedder import Embedder
from palegreen.evaluators.embed.parts import VectorsOf, vectors_of
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Sample

ENGINES = ("local", "ray")
BATCH = 64
"""Samples that are embedded together, on every engine: a model may give a text other bits in other company."""


class Engine(Protocol):
    """Does the same on every engine: same samples, in the same order, with the same vectors to the bit."""

    embedder: Embedder

    def redacted(self, source: Path, since: float | None = None) -> Iterator[Sample]:
        """The samples of a place, redacted, in their order, without those before `since` (epoch seconds). Raises
        BaselineError like `source.samples`."""
        ...

    def embedded(self, samples: Sequence[Sample]) -> Iterator[list[VectorsOf]]:
        """The vectors of redacted samples, in order, BATCH by BATCH."""
        ...


class Local:
    """In this process, one after another."""

    def __init__(self, embedder: Embedder, redactor: Redactor) -> None:
        self.embedder = embedder
        self._redactor = redactor

    def redacted(self, source: Path, since: float | None = None) -> Iterator[Sample]:
        """See `Engine`."""
        return map(self._redactor.sample, samples(source, since))

    def embedded(self, samples: Sequence[Sample]) -> Iterator[list[VectorsOf]]:
        """See `Engine`."""
        for batch in batches(samples):
            yield vectors_of(self.embedder, batch)


def batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Consecutive samples, BATCH at a time."""
    for at in range(0, len(samples), BATCH):
        yield samples[at : at + BATCH]


@contextmanager
def engine(name: str, embedder: Embedder, settings: EvaluateConfig) -> Iterator[Engine]:
    """The engine of that name, of ENGINES; what it holds is given back at the end.

    Raises:
        BaselineError: Ray is not installed.
        ConfigError: the redaction cannot be had.
    """
    redactor = Redactor(settings.redaction)
    if name == "local":
        yield Local(embedder, redactor)
        return
    try:
        from palegreen.evaluators.baseline.cluster import Cluster
    except ModuleNotFoundError as missing:
        raise BaselineError(f"--engine ray needs the package {missing.name}: pip install 'palegreen[ray]'") from None
    with Cluster(embedder, settings) as cluster:
        yield cluster
