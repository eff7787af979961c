"""What the checks say of a baseline's own samples, cluster by cluster: what is normal for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.manifest import Counts
from palegreen.evaluators.baseline.prepare import Prepared
from palegreen.evaluators.baseline.split import Thirds
from palegreen.evaluators.checks.registry import Checks
from palegreen.evaluators.checks.view import View

Quantiles = dict[str, dict[str, float]]
Floats = NDArray[np.float64]


class Limits(Protocol):
    """The limits of a check or score by cluster, see `detectors.bounds`."""

    def __call__(self, values: NDArray[Any], clusters: NDArray[np.intp], count: int, *, checks: int) -> list[float]:
        """Of values in [0, 1], of which high ones are bad; `checks` is how many checks and scores there are in all."""
        ...


def count(
    prepared: Prepared,
    cluster: NDArray[np.intp],
    clusters: int,
    parts: Thirds,
    checks: Checks,
    quantiles: Quantiles,
    limits: Limits,
    done: Callable[[int], None],
) -> tuple[dict[str, Counts], dict[str, int]]:
    """Outcomes by check on the whitening and the calibration third, and the samples by language of the response.

    `quantiles` are of the regression third: a check that compares with them has not seen these samples.
    """
    which = np.sort(np.concatenate([parts.whitening, parts.calibration]))
    failed: dict[str, Floats] = {}  # by check: 1 failed, 0 passed, NaN neither
    lost: dict[str, Floats] = {}  # by check: one minus the score, NaN without one
    languages: Counter[str] = Counter()
    for at, sample in enumerate(which.tolist()):
        view = View(prepared.samples[sample], prepared.vectors[sample], quantiles)
        for name, outcome in checks.run(view).items():
            if outcome is not None and outcome.passed is not None:
                failed.setdefault(name, np.full(len(which), np.nan))[at] = not outcome.passed
            if outcome is not None and outcome.score is not None:
                lost.setdefault(name, np.full(len(which), np.nan))[at] = 1 - outcome.score
        if view.language is not None:
            languages[view.language.code] += 1
        done(1)
    streams = len(failed) + len(lost)
    counts = {
        name: _counts(failed.get(name), lost.get(name), cluster[which], clusters, limits, streams)
        for name in sorted(failed.keys() | lost.keys())
    }
    return counts, dict(languages)


def _counts(
    failed: Floats | None, lost: Floats | None, cluster: NDArray[np.intp], clusters: int, limits: Limits, streams: int
) -> Counts:
    nothing: list[Floats] = [np.empty(0)] * clusters

    def grouped(values: Floats | None) -> tuple[list[Floats], list[float]]:
        """Values by cluster, and their limits."""
        if values is None:
            return nothing, []
        told = ~np.isnan(values) & (cluster >= 0)
        values, of = values[told], cluster[told]
        return [values[of == each] for each in range(clusters)], limits(values, of, clusters, checks=streams)

    failures, limit = grouped(failed)
    losses, loss_limit = grouped(lost)
    return Counts(
        judged=[len(each) for each in failures],
        failures=[int(each.sum()) for each in failures],
        scored=[len(each) for each in losses],
        score_mean=[1 - float(each.mean()) if len(each) else 0.0 for each in losses],
        score_variance=[float(each.var()) if len(each) else 0.0 for each in losses],
        limit=limit,
        loss_limit=loss_limit,
    )
