"""The static embedder: a vector a token, distilled from MiniLM, and their mean. Some fifty times faster than MiniLM.

As in model2vec (van Dongen and Tulkens 2024) there is no attention: the order of words is not seen. `distil` made the
table; `assets/README.md` says of what.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from palegreen.evaluators.embed import tokens
from palegreen.evaluators.embed.embedder import Vectors
from palegreen.evaluators.embed.files import asset, geometry
from palegreen.evaluators.embed.tokens import Tokens

SHA256 = "b098c619d48c2f2f75defb7c903cb6f84e5e9397c205ff5480bab653f35aacd9"


class Static:
    """Vectors of 128 dimensions from the first 4,096 characters of a text."""

    name = "static"
    digest = geometry(SHA256, tokens.SHA256, str(tokens.LONGEST))
    dimensions = 128

    def __init__(self) -> None:
        with np.load(io.BytesIO(asset("static.npz", SHA256)), allow_pickle=False) as arrays:
            self._rows, self._scales = arrays["rows"], arrays["scales"]  # int8 (tokens, dimensions); float32 (tokens,)
        self._tokens = Tokens(None)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, in order. The order of words within a text makes no difference."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for vector, ids in zip(vectors, self._tokens.ids(texts), strict=True):
            if ids:
                np.matmul(self._scales[ids], self._rows[ids], out=vector)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors
