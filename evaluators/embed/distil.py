"""Makes the static embedder's table (development only): `python -m palegreen.evaluators.embed.distil TEXTS --out FILE`.

TEXTS has one text a line. As in model2vec, each token of the vocabulary goes through MiniLM alone and is weighted by
how rare it is (smooth inverse frequency, Arora et al. 2017; the frequency by Zipf's law, as BERT's vocabulary is in the
order of frequency). Beyond that, one linear map from a text's mean to MiniLM's vector of the text is fitted by ridge
regression and folded into the table: a word alone is not what it is in a sentence. The map is far smaller than the
table, so that words that the texts lack gain from it too. Every tenth text is kept apart and tells how good the
result is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.embed.minilm import MiniLM
from palegreen.evaluators.embed.tokens import CLS, SEP, UNKNOWN, VOCABULARY, Tokens

Floats = NDArray[Any]

FIRST_WORD = 1996
"""Words begin here, the most frequent first; before lie special tokens and single characters, in no order."""
SMOOTHING = 3e-5
RIDGE = 1.0
HELD_OUT = 10


def table(texts: Sequence[str], teacher: MiniLM, dimensions: int) -> Floats:
    """The table, shape (VOCABULARY, dimensions): vectors whose sum over a text's tokens points where MiniLM does."""
    alone = teacher.vectors([[CLS, token, SEP] for token in range(VOCABULARY)])
    weighted = (alone - alone.mean(axis=0)) * _rarity()[:, np.newaxis]
    weighted[UNKNOWN] = 0
    means = summed(Tokens(None).ids(texts), weighted)
    wanted = teacher.embed(texts)
    fitted = np.linalg.solve(means.T @ means + RIDGE * np.eye(means.shape[1]), means.T @ wanted)
    # Of the mapped vectors the directions in which texts differ most.
    directions = np.linalg.svd(means @ fitted, full_matrices=False)[2][:dimensions]
    return np.asarray(weighted @ fitted @ directions.T)


def quantised(vectors: Floats) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers by token and the scale of each token."""
    scales = np.abs(vectors).max(axis=1) / 127
    rows = np.rint(vectors / np.where(scales > 0, scales, 1)[:, np.newaxis])
    return rows.astype(np.int8), scales.astype(np.float32)


def summed(ids: Sequence[Sequence[int]], vectors: Floats) -> Floats:
    """Unit vectors of texts."""
    sums = np.stack([vectors[list(row)].sum(axis=0) for row in ids])
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12))


def agreement(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Spearman correlation of the cosines of all pairs, and the share of the ten nearest that are the same."""
    left, right = ours @ ours.T, theirs @ theirs.T
    above = np.triu_indices(len(ours), 1)
    ranks = [np.argsort(np.argsort(side[above])) for side in (left, right)]
    for side in (left, right):
        np.fill_diagonal(side, -2)
    nearest = [np.argsort(-side, axis=1)[:, :10] for side in (left, right)]
    same = [len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]), float(np.mean(same))


def _rarity() -> Floats:
    rank = np.maximum(np.arange(VOCABULARY) - FIRST_WORD + 1, 1) + 1.0
    frequency = (1 / rank) / (1 / rank).sum()
    return np.asarray(SMOOTHING / (SMOOTHING + frequency))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m palegreen.evaluators.embed.distil", description=__doc__)
    parser.add_argument("texts", type=Path, help="file with one text a line")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, .npz")
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    texts = options.texts.read_text(encoding="utf-8").splitlines()
    teacher = MiniLM(options.threads)
    kept = [text for index, text in enumerate(texts) if index % HELD_OUT]
    apart = texts[::HELD_OUT]
    rows, scales = quantised(table(kept, teacher, options.dimensions))
    np.savez(options.out, rows=rows, scales=scales)
    ours = summed(Tokens(None).ids(apart), rows * scales[:, np.newaxis])
    correlation, nearest = agreement(ours, teacher.embed(apart))
    sys.stderr.write(f"{len(apart)} texts apart: correlation {correlation:.3f}, same of ten nearest {nearest:.3f}\n")


if __name__ == "__main__":
    main()
