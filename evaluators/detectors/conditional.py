"""What is normal in each cluster of prompts: the mean and spread of the whitened vectors, and our doubt of it.

A regression on the prompt leaves residuals whose mean and spread still differ from one kind of question to another. If
they are taken as one, then a change of what users ask changes the mean and the spread of the stream, and alarms. So
each cluster is centred on its own mean, and each block of dimensions in it is scaled to unit variance.

The means of clusters have one normal prior, whose variance comes from how much clusters differ at all (empirical Bayes:
Efron, Morris, "Data analysis using Stein's estimator and its generalizations", JASA 70, 1975). Their posterior mean is
the centre; their posterior covariance is the doubt that remains. A cluster is itself a mix of questions, which may
change as that of clusters may: part of the variance between clusters is doubted for that. The detector adds the doubt
to the variance of its averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_WITHIN = 0.5
"""Variance by which the mean of a cluster moves if its own mix of questions does, over that between clusters or that
of the error of a mean, whichever is less: clusters are as fine as samples allow."""

_PRIOR = 1.0
"""Samples that the common spread counts for, beside those of the cluster."""


class Conditional(NamedTuple):
    """Centre and scale, (clusters, dimensions), and `doubt`, (clusters, blocks, clusters).

    Of a mix of clusters with weights w, the variance of the mean in a block is |w @ doubt[:, block]|^2, after scaling.
    `error` is the same of that part which comes of the baseline being finite.
    `spread_error`: relative standard error of the variance, (clusters, blocks).
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    doubt: NDArray[np.float64]
    error: NDArray[np.float64]
    spread_error: NDArray[np.float64]

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
        known = (np.maximum(counts - 1, 0) + _PRIOR)[:, None]
        variance = (spread + _PRIOR * pooled) / known
        relative = ((within / variance[clusters] - 1) ** 2).mean(axis=0)
        # Between-cluster variance by moments, plus its standard error: none found does not mean that there is none.
        share = (counts / n)[:, None]
        error = variance / some
        seen = np.add.reduceat((means - vectors.mean(axis=0)) ** 2, starts, axis=1) / sizes
        noise = (share * error).sum(axis=0)
        between = np.maximum((share * (seen - error)).sum(axis=0), 0) + noise * np.sqrt(2 / (sizes * count))
        centre, (doubt, unknown) = np.empty_like(means), np.empty((2, count, len(blocks), count))
        for at, block in enumerate(blocks):
            told = counts / variance[:, at]
            precision = np.diag(told) + (np.eye(count) - 1 / count) / max(between[at], 1e-12)
            precision += n_whitening * share * share.T / (pooled[at] + between[at])
            covariance = np.linalg.inv(precision)
            centre[:, block] = covariance @ (told[:, None] * means[:, block])
            changed = covariance + np.eye(count) * _WITHIN * min(between[at], noise[at]) * (count > 1)
            for roots, each in ((unknown, covariance), (doubt, changed)):
                roots[:, at] = np.linalg.cholesky(each) / np.sqrt(variance[:, at, None])
        return cls(centre, np.repeat(np.sqrt(variance), sizes, axis=1), doubt, unknown, np.sqrt(relative / known))
