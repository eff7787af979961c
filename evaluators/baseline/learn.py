"""What the arrays of a baseline are: regression and centroids from one third, whitening from another. Offline only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.features import MOST, Floats, Rows, conditions, squared_distances
from palegreen.evaluators.baseline.split import Thirds

Arrays = dict[str, NDArray[Any]]

CLUSTER_SIZE = 64
"""Prompts a cluster has in the regression third, about: checks are counted by cluster, and rates need samples."""
CLUSTERS = 16
SUPPORT = 0.999
"""Share of the baseline's prompts that are usual."""
PROMPTS = 100
"""Prompts that both the whitening and the calibration third have at least; with fewer there is no prompt channel."""
_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_MEASURE_PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
"""Of one number: where the question says nothing about it, so should the regression."""
_FOLDS = 4
_FLAT = 1e-6  # of the largest variance: beyond lies rounding, not text
_KNOWN = 0.95
"""Share of the samples that have a measure, at least."""
_NARROWEST = (0.1, 0.02)
"""Standard deviations of MEASURES at least: less is no difference between answers."""
_STILL = 1e-8  # variance of unit vectors that are one and the same


def learn(rows: Rows, parts: Thirds, seed: int) -> Arrays:
    """The arrays that `Features` reads.

    Raises:
        BaselineError: the responses do not differ.
    """
    arrays = _regression(rows.take(parts.regression), parts.block[parts.regression], seed)
    expected = conditions(rows, squared_distances(rows.prompt, arrays["centroids"]), float(arrays["temperature"]))
    residual = rows.response - expected @ arrays["weights"] - arrays["intercept"]
    residual = residual[parts.whitening]
    arrays |= _whitening("response", residual, parts.block[parts.whitening])
    if not arrays["response.scale"].size:
        raise BaselineError("the responses are all alike; allowed: samples whose responses differ")
    arrays |= _measured(rows.measures, expected, parts)
    variance = float(rows.response[parts.whitening].var(axis=0).sum())
    arrays["explained"] = np.array(1 - float(residual.var(axis=0).sum()) / max(variance, _STILL))
    asked, checked = (third[rows.has_prompt[third]] for third in (parts.whitening, parts.calibration))
    if min(len(asked), len(checked)) < PROMPTS:
        asked = asked[:0]
    arrays |= _whitening("prompt", rows.prompt[asked], parts.block[asked])
    arrays["support"] = _support(rows.prompt[checked], arrays["centroids"])
    for name, vectors in (("response", rows.response), ("prompt", rows.prompt[rows.has_prompt])):
        arrays[f"usual.{name}"] = vectors.mean(axis=0) if len(vectors) else np.zeros(rows.prompt.shape[1], np.float32)
        arrays[f"spread.{name}"] = np.array(vectors.var(axis=0).sum() if len(vectors) else 0.0)
    return arrays


def _regression(rows: Rows, blocks: NDArray[np.intp], seed: int) -> Arrays:
    """Centroids of prompts and of responses, and the ridge regression of responses on the conditions.

    The penalty is the one that predicts best across blocks of time.
    """
    prompts = rows.prompt[rows.has_prompt]
    centroids, spread = _centroids(prompts, seed)
    squared = squared_distances(rows.prompt, centroids)
    phi = conditions(rows, squared, spread)
    ridge = _ridge(phi, rows.response, blocks, _PENALTIES)
    return {
        "weights": np.ascontiguousarray(ridge.coef_.T, np.float32),
        "intercept": np.asarray(ridge.intercept_, np.float32),
        "penalty": np.array(ridge.alpha),
        "centroids": centroids,
        "temperature": np.array(spread),
        "answers": _centroids(rows.response, seed)[0],
    }


def _ridge(phi: Floats, values: Floats, blocks: NDArray[np.intp], penalties: Sequence[float]) -> Ridge:
    """The ridge regression whose penalty predicts best across blocks of time."""
    folds = GroupKFold(min(_FOLDS, len(np.unique(blocks))))
    search = GridSearchCV(Ridge(), {"alpha": penalties}, cv=folds, scoring="neg_mean_squared_error")
    best: Ridge = search.fit(phi, values, groups=blocks).best_estimator_
    return best


def _measured(measures: Floats, phi: Floats, parts: Thirds) -> Arrays:
    """The measures that nearly all samples have and that differ, regressed on the conditions (n, c)."""
    weights, intercepts, scales, which = [], [], [], []
    for at in range(measures.shape[1]):
        known = np.isfinite(measures[:, at])
        seen, held = (third[known[third]] for third in (parts.regression, parts.whitening))
        if known.mean() < _KNOWN or measures[known, at].std() < _STILL:
            continue
        ridge = _ridge(phi[seen], measures[seen, at], parts.block[seen], _MEASURE_PENALTIES)
        residual = measures[held, at] - ridge.predict(phi[held])
        which.append(at)
        weights.append(ridge.coef_)
        intercepts.append(ridge.intercept_ + residual.mean())
        scales.append(max(float(residual.std()), _NARROWEST[at]))
    made = {"weights": np.array(weights).reshape(len(which), phi.shape[1]).T, "intercept": intercepts, "scale": scales}
    return {"measured.which": np.array(which, np.intp)} | {
        f"measured.{name}": np.ascontiguousarray(array, np.float32) for name, array in made.items()
    }


def _centroids(vectors: Floats, seed: int) -> tuple[Floats, float]:
    """Centroids, (k, d), and the mean squared distance to the nearest; k is 0 without vectors."""
    count = min(CLUSTERS, max(1, len(vectors) // CLUSTER_SIZE), len(np.unique(vectors, axis=0)))
    if not len(vectors):
        return vectors, 1.0
    found = KMeans(count, n_init=4, random_state=seed).fit(vectors)
    return np.asarray(found.cluster_centers_, np.float32), max(float(found.inertia_) / len(vectors), 1e-3)


def _whitening(channel: str, rows: Floats, blocks: NDArray[np.intp]) -> Arrays:
    """Principal components of rows (n, d), no more than n / 4 and no flat ones; none if the rows do not differ.

    Variances of components are too large at one end and too small at the other on the rows that they were found in, so
    they are those of rows held out (Bartz, "Cross-validation based nonlinear shrinkage", arXiv 1611.00798, 2016).
    """
    mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
    axes, variances = np.zeros((rows.shape[1], 0)), np.zeros(0)
    if len(rows) >= 8 and float(rows.var(axis=0).sum()) >= _STILL:
        found = PCA(svd_solver="full").fit(rows)
        spread = found.explained_variance_
        kept = min(MOST, len(rows) // 4, int((spread > _FLAT * spread[0]).sum()))
        axes, variances = found.components_[:kept].T, np.maximum(_held_out(rows, blocks, kept), _FLAT * spread[0])
    named = {"mean": mean, "axes": axes, "scale": np.sqrt(variances)}
    return {f"{channel}.{name}": np.ascontiguousarray(array, np.float32) for name, array in named.items()}


def _held_out(rows: Floats, blocks: NDArray[np.intp], kept: int) -> NDArray[np.float64]:
    """Variances (kept,) along the components of other blocks, in falling order."""
    squares = np.zeros(kept)
    for others, these in GroupKFold(min(_FOLDS, len(np.unique(blocks)))).split(rows, groups=blocks):
        found = PCA(kept, svd_solver="full").fit(rows[others])
        squares += (found.transform(rows[these]) ** 2).sum(axis=0)
    return np.asarray(isotonic_regression(squares / len(rows), increasing=False))


def _support(prompts: Floats, centroids: Floats) -> NDArray[Any]:
    """How far from the nearest centroid prompts that it was not made of lie."""
    if not len(prompts) or not len(centroids):
        return np.array(np.inf)
    return np.array(np.quantile(np.sqrt(squared_distances(prompts, centroids).min(axis=1)), SUPPORT))
