"""What is normal in each cluster of prompts: the mean and spread of the whitened vectors, and our doubt of it.

A regression on the prompt leaves residuals whose mean and spread still differ from one kind of question to another. If
they are taken as one, then a change of what users ask changes the mean and the spread of the stream, and alarms. Here
each cluster is centred on its own mean, shrunk to the common one by how much clusters differ at all (empirical Bayes:
Efron, Morris, "Data analysis using Stein's estimator and its generalizations", JASA 70, 1975), and each block of
dimensions in it is scaled to unit variance. What remains unknown of a mean is kept as a variance, `doubt`, which the
detector adds to that of its averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_PRIOR = 10.0
"""Samples that the common spread counts for, beside those of the cluster."""


class Conditional(NamedTuple):
    """Centre and scale by cluster. `doubt`: variance of a centre after scaling, (clusters, blocks); `common`: that of
    the mean of all."""

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    doubt: NDArray[np.float64]
    common: float

    @classmethod
    def fit(
        cls, vectors: NDArray[Any], clusters: NDArray[np.intp], count: int, blocks: Sequence[slice], n_whitening: int
    ) -> Conditional:
        """From vectors (n, dimensions) centred on the mean of `n_whitening` others, and their clusters of `count`."""
        n, dimensions = vectors.shape
        starts = [block.start for block in blocks]
        sizes = np.diff([*starts, dimensions])
        members = np.zeros((count, n))
        members[clusters, np.arange(n)] = 1
        counts = members.sum(axis=1)
        some = np.maximum(counts, 1)[:, None]
        means = members @ vectors / some
        within = np.add.reduceat((vectors - means[clusters]) ** 2, starts, axis=1) / sizes
        spread = members @ within
        pooled = spread.sum(axis=0) / max(1, n - np.count_nonzero(counts))
        # The mean of a cluster takes one degree of freedom of it.
        variance = (spread + _PRIOR * pooled) / (np.maximum(counts - 1, 0) + _PRIOR)[:, None]
        weight = n / (n + n_whitening)
        overall = weight * vectors.mean(axis=0)
        apart = means - overall
        error = variance / some
        seen = np.add.reduceat(apart**2, starts, axis=1) / sizes
        share = (counts / n)[:, None]
        # Between-cluster variance by moments, plus its standard error: none found does not mean that there is none.
        noise = (share * error).sum(axis=0)
        between = np.maximum((share * (seen - error)).sum(axis=0), 0) + noise * np.sqrt(2 / (sizes * count))
        if count == 1:
            between = np.zeros(len(blocks))
        trust = np.where(counts[:, None] > 0, between / np.maximum(between + error, 1e-12), 0)
        centre = overall + np.repeat(trust, sizes, axis=1) * apart
        doubt = between * (1 - trust) / variance
        return cls(centre, np.repeat(np.sqrt(variance), sizes, axis=1), doubt, 1 / (n + n_whitening))
