"""A real approximate index (faiss, HNSW), degraded as a test asks, and its exact search with numpy."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def vectors(count: int, dimensions: int = 32, seed: int = 0) -> Floats:
    """Unit vectors in clusters of different size, as embedded texts lie."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(20, dimensions))
    rows = centres[chance.integers(0, 20, count)] + 0.7 * chance.normal(size=(count, dimensions))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class Hnsw:
    """`held` are the rows that the index knows of; `ef` is how much of its graph a search visits."""

    def __init__(self, rows: Floats, ef: int = 200, held: NDArray[np.intp] | None = None, links: int = 16) -> None:
        faiss.omp_set_num_threads(1)
        self.rows = rows
        self.held = np.arange(len(rows)) if held is None else held
        self._index = faiss.IndexHNSWFlat(rows.shape[1], links, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efSearch = ef
        self._index.add(rows[self.held])

    def search(self, vector: Any, k: int) -> tuple[list[int], list[float]]:
        """Ids from the best on and their scores."""
        scores, places = self._index.search(np.asarray(vector, np.float32)[None], k)
        found = [(int(self.held[at]), float(score)) for at, score in zip(places[0], scores[0], strict=True) if at >= 0]
        return [each for each, _ in found], [score for _, score in found]

    def exact(self, vector: Any, k: int) -> list[int]:
        """The true nearest of what is held, as an index does it that can."""
        scores = self.rows[self.held] @ np.asarray(vector, np.float32)
        return [int(each) for each in self.held[np.argsort(-scores)[:k]]]


def true_recall(index: Hnsw, queries: Floats, k: int) -> float:
    """Mean recall against all rows, the definition written out."""
    shares = []
    for query in queries:
        true = set(np.argsort(-(index.rows @ query))[:k].tolist())
        shares.append(len(true & set(index.search(query, k)[0])) / k)
    return float(np.mean(shares))
