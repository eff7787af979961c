"""Exact search over vectors of a file: every one is compared, with numpy alone."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.probes.retrieval_search import Vector
from palegreen.runtime.yamlfile import ConfigError

Distance = Literal["cosine", "dot", "euclidean"]
TIE = 1e-6
"""Distances that differ by no more, relative to the larger one, are the same."""
_FORMATS = "(n, dimensions) numbers, and in .npz and .parquet their ids"


class Nearest(NamedTuple):
    """The true neighbours: how many there are to find, and every id that is as near as the last of them."""

    expected: int
    ids: frozenset[str]


class Vectors:
    """The vectors of an index, or a part of them.

    .npz holds arrays `ids` (n,) and `vectors` (n, dimensions); .npy the vectors alone, whose ids are the numbers of
    their rows from 0; .parquet the columns `id` and `vector`.

    Raises:
        ConfigError: the file cannot be used; one line that begins with `origin`.
    """

    def __init__(self, path: Path, distance: Distance, limit: int, origin: str) -> None:
        try:
            ids, vectors = _read(path)
        except ModuleNotFoundError:
            raise ConfigError(f'{origin}: {path}: Parquet needs pip install "palegreen[parquet]"') from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as failure:
            raise ConfigError(f"{origin}: {path} cannot be read: {failure}; allowed: {_FORMATS}") from None
        if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind not in "fiu" or len(ids) != len(vectors):
            raise ConfigError(f"{origin}: {path}: {len(ids)} ids, vectors {vectors.shape}; allowed: {_FORMATS}")
        if vectors.size * 4 > limit:
            raise ConfigError(f"{origin}: {path}: {vectors.size * 4} bytes of vectors; allowed: vectors_limit, {limit}")
        self._rows = np.require(vectors, np.float32, "W")  # a copy only where it must be
        if not np.isfinite(self._rows).all():
            raise ConfigError(f"{origin}: {path}: a vector holds NaN or infinity")
        self._ids = [str(each) for each in ids.tolist()]
        self._places = {each: at for at, each in enumerate(self._ids)}
        if len(self._places) < len(self._ids):
            raise ConfigError(f"{origin}: {path}: an id is there twice; allowed: one vector for each")
        self._distance = distance
        if distance == "cosine":
            self._rows /= np.maximum(np.linalg.norm(self._rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        self._squares = np.einsum("ij,ij->i", self._rows, self._rows) if distance == "euclidean" else None

    @property
    def dimensions(self) -> int:
        """Of each vector."""
        return int(self._rows.shape[1])

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def nearest(self, vector: Vector, k: int) -> Nearest:
        """The `k` nearest to a vector, and what ties with the last."""
        distances = self._distances(vector)
        expected = min(k, len(distances))
        last = np.partition(distances, expected - 1)[expected - 1]
        near = np.flatnonzero(distances <= last + TIE * max(1.0, abs(last)))
        return Nearest(expected, frozenset(self._ids[at] for at in near))

    def _distances(self, vector: Vector) -> NDArray[np.float32]:
        """Of every row, the nearest lowest, up to what changes no order. Raises ValueError for other dimensions."""
        if vector.shape != (self.dimensions,):
            raise ValueError(f"the query's vector has {len(vector)} dimensions, those of the file {self.dimensions}")
        products = self._rows @ vector
        if self._squares is not None:
            return np.asarray(self._squares - 2 * products + vector @ vector, np.float32)
        return np.asarray(-products / (np.linalg.norm(vector) if self._distance == "cosine" else 1), np.float32)


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path, columns=["id", "vector"])
        return np.array(table["id"].to_pylist()), np.array(table["vector"].to_pylist())
    if path.suffix == ".npy":
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.arange(len(vectors)), vectors
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["ids"], arrays["vectors"]
