"""The embedder of the probe process: loaded by the first probe that needs it, and by none if none does."""

from __future__ import annotations

from threading import Lock

import structlog

from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.embedder import Embedder, EmbedderError

log = structlog.get_logger()


class Lazily:
    """Called, gives the embedder of that name, or None for `none` and where it cannot be had, which is logged once."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._lock = Lock()
        self._loaded = False
        self._embedder: Embedder | None = None

    def __call__(self) -> Embedder | None:
        """The embedder."""
        with self._lock:
            if not self._loaded:
                self._loaded = True
                try:
                    self._embedder = embedder(self._name, self._threads)
                except EmbedderError as refused:
                    log.error("probe.embedder", cause=str(refused), effect="texts are compared by letters alone")
            return self._embedder
