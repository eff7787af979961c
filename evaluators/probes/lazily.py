"""The embedder of the probe process: loaded by the first probe that needs it, and by none if none does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
import structlog
from numpy.typing import NDArray

from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.embedder import Embedder, EmbedderError

log = structlog.get_logger()

Vector = NDArray[np.float32]
_REMEMBERED = 2048  # texts: recorded answers come again and again


class Lazily:
    """The embedder that the configuration names; safe to use from several threads."""

    def __init__(self, name: str, threads: int, load: Callable[[str, int], Embedder | None] = embedder) -> None:
        self._name = name
        self._threads = threads
        self._load = load
        self._lock = Lock()
        self._loaded = False
        self._embedder: Embedder | None = None
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    def embedder(self) -> Embedder | None:
        """The embedder, None for `none` and where it cannot be had, which is logged once."""
        with self._lock:
            return self._had()

    def vector(self, text: str) -> Vector | None:
        """The unit vector of a text, None where there is no embedder."""
        with self._lock:
            found = self._vectors.get(text)
            if found is None and (with_it := self._had()) is not None:
                found = self._vectors[text] = with_it.embed([text])[0]
                if len(self._vectors) > _REMEMBERED:
                    self._vectors.popitem(last=False)
            return found

    def _had(self) -> Embedder | None:
        if not self._loaded:
            self._loaded = True
            try:
                self._embedder = self._load(self._name, self._threads)
            except EmbedderError as refused:
                log.error("probe.embedder", cause=str(refused), effect="texts are compared by letters alone")
        return self._embedder
