"""Fits a projection: `python -m palegreen.evaluators.replicas.fit TEXTS --embedder NAME --out FILE`.

TEXTS has one text a line, some thousands of them, of any kind that is no secret: the file holds numbers alone, but the
same file must be on every replica. The features are the 32 principal components in which texts differ most, each
scaled to a standard deviation of 1, so that they are uncorrelated on these texts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.embedder import EmbedderError
from palegreen.evaluators.replicas.projection import DIMENSIONS, Projection

LEAST = 1000
_AT_ONCE = 256


def fitted(vectors: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Mean, axes and scales of unit vectors, shape (texts, dimensions)."""
    mean = vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(vectors.T))
    most = np.argsort(variances)[::-1][:DIMENSIONS]
    signs = np.sign(axes[np.abs(axes[:, most]).argmax(axis=0), most])  # eigenvectors have none of their own
    parts = {"mean": mean, "axes": (axes[:, most] * signs).T, "scales": np.sqrt(variances[most])}
    return {name: np.asarray(part, np.float32) for name, part in parts.items()}


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m palegreen.evaluators.replicas.fit", description=__doc__)
    parser.add_argument("texts", type=Path, help="file with one text a line")
    parser.add_argument("--embedder", required=True, metavar="NAME", help="as in the evaluator's configuration")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the projection, .npz")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    try:
        chosen = embedder(options.embedder, options.threads)
        texts = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (EmbedderError, OSError) as failure:
        sys.stderr.write(f"{failure}\n")
        return 2
    if chosen is None or chosen.dimensions <= DIMENSIONS or len(texts) < LEAST:
        sys.stderr.write(f"a projection needs an embedder of more than {DIMENSIONS} dimensions and {LEAST} texts\n")
        return 2
    vectors = []
    for at in range(0, len(texts), _AT_ONCE):
        vectors.append(chosen.embed(texts[at : at + _AT_ONCE]))
        sys.stderr.write(f"\r{min(at + _AT_ONCE, len(texts))} of {len(texts)} texts")
    rows = np.concatenate(vectors).astype(np.float64)
    with options.out.open("wb") as file:
        np.savez(file, embedder=np.array(chosen.digest), **fitted(rows))  # type: ignore[arg-type]  # numpy's stub
    sys.stderr.write(f"\nbasis {Projection(options.out.read_bytes()).basis}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
