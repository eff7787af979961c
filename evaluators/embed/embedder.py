"""What an embedder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (texts, dimensions), rows of unit length; the row of an empty text is zero."""


class EmbedderError(Exception):
    """An embedder that cannot be had or is not what its hash says; one line with what to do."""


class Embedder(Protocol):
    """Texts to vectors. `name` is for people, `digest` (sha256, hex) is the geometry: baselines pin it."""

    name: str
    digest: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, in order. Long texts are cut where the model's window ends."""
        ...


def pinned(embedder: Embedder) -> dict[str, Any]:
    """What a manifest says of an embedder."""
    return {"name": embedder.name, "digest": embedder.digest, "dimensions": embedder.dimensions}
