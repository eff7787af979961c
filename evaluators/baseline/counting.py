"""What the checks say of a baseline's own samples, cluster by cluster: what is normal for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.features import Projected
from palegreen.evaluators.baseline.manifest import Counts, Normal
from palegreen.evaluators.baseline.prepare import Prepared
from palegreen.evaluators.baseline.scalars import WATCHED, Usual, bounded, usual
from palegreen.evaluators.baseline.segments import LEAST, Named, name, names_of
from palegreen.evaluators.baseline.split import Index, Thirds
from palegreen.evaluators.checks.registry import Checks
from palegreen.evaluators.checks.view import View

Quantiles = dict[str, dict[str, float]]
Floats = NDArray[np.float64]
Streams = dict[str, Floats]
"""Values of each sample by check, in [0, 1], high ones bad; NaN where there is none."""

EMPTY = "empty"
"""The check that sees what is no part of a baseline: responses without anything in them, see `prepare.left_out`."""


class Limits(Protocol):
    """The limits of a check or score by cluster, see `detectors.bounds`."""

    def __call__(self, values: NDArray[Any], clusters: NDArray[np.intp], count: int, *, checks: int) -> list[float]:
        """Of values in [0, 1], of which high ones are bad; `checks` is how many checks and scores there are in all."""
        ...


class Counted(NamedTuple):
    """What was found, and the samples by language of the response. `scarce` are the samples of segments too small for
    limits of their own."""

    checks: dict[str, Counts]
    usual: dict[str, Usual]
    normal: Normal
    segments: dict[str, Normal]
    languages: dict[str, int]
    scarce: dict[str, int]


def count(
    prepared: Prepared,
    projected: Projected,
    clusters: int,
    parts: Thirds,
    checks: Checks,
    quantiles: Quantiles,
    segments: Sequence[Named],
    limits: Limits,
    done: Callable[[int], None],
) -> Counted:
    """Outcomes by check on the whitening and the calibration third.

    `quantiles` of `words` are of the regression third: a check that compares with them has not seen these samples.
    Scalar channels are counted on the calibration third alone: on the others something of them was fitted.
    """
    which = np.sort(np.concatenate([parts.whitening, parts.calibration]))
    failed, lost, languages = _outcomes(prepared, which, checks, quantiles, done)
    losses = lost | _scalars(projected, which, parts.calibration)
    reach = {each: usual(values[~np.isnan(values)]) for each, values in losses.items() if not np.isnan(values).all()}
    beyond = {each: bounded(losses[each], of) for each, of in reach.items()}
    cluster = projected.cluster[which]
    member = {name(each): np.zeros(len(which), np.bool_) for each in segments}
    for at, sample in enumerate(which.tolist()):
        for segment in names_of(prepared.samples[sample], segments):
            member[segment][at] = True
    kept = {segment: inside for segment, inside in member.items() if inside.sum() >= LEAST}
    streams = (len(failed) + len(beyond)) * (1 + len(kept))

    def normal(inside: NDArray[np.bool_]) -> Normal:
        def each(values: Streams) -> dict[str, list[float]]:
            found = {}
            for check, some in sorted(values.items()):
                told = inside & ~np.isnan(some) & (cluster >= 0)
                found[check] = limits(some[told], cluster[told], clusters, checks=streams)
            return found

        return Normal(samples=int(inside.sum()), limit=each(failed), loss_limit=each(beyond))

    whole = normal(np.ones(len(which), np.bool_))
    if EMPTY in failed:
        whole.limit[EMPTY] = _empty(prepared, clusters, limits, streams)
    counts = {
        check: _counts(failed.get(check), lost.get(check), cluster, clusters)
        for check in sorted(failed.keys() | lost.keys())
    }
    parts_of_it = {segment: normal(inside) for segment, inside in kept.items()}
    scarce = {segment: int(inside.sum()) for segment, inside in member.items() if segment not in kept}
    return Counted(counts, reach, whole, parts_of_it, languages, scarce)


def _outcomes(
    prepared: Prepared, which: Index, checks: Checks, quantiles: Quantiles, done: Callable[[int], None]
) -> tuple[Streams, Streams, dict[str, int]]:
    """By check: 1 failed, 0 passed; one minus the score; and the languages of the responses."""
    failed: Streams = {}
    lost: Streams = {}
    languages: Counter[str] = Counter()
    for at, sample in enumerate(which.tolist()):
        view = View(prepared.samples[sample], prepared.vectors[sample], quantiles)
        for check, outcome in checks.run(view).items():
            if outcome is not None and outcome.passed is not None:
                failed.setdefault(check, np.full(len(which), np.nan))[at] = not outcome.passed
            if outcome is not None and outcome.score is not None:
                lost.setdefault(check, np.full(len(which), np.nan))[at] = 1 - outcome.score
        if view.language is not None:
            languages[view.language.code] += 1
        done(1)
    return failed, lost, dict(languages)


def _scalars(projected: Projected, which: Index, calibration: Index) -> Streams:
    mine = np.isin(which, calibration)
    return {channel: np.where(mine, projected.scalars[channel][which], np.nan) for channel in WATCHED}


def _empty(prepared: Prepared, clusters: int, limits: Limits, streams: int) -> list[float]:
    """The limit of empty responses, alike in all clusters: they were left out before there were any."""
    ones = prepared.left_out.get("empty", 0)
    values = np.repeat([0.0, 1.0], [len(prepared.samples), ones])
    return limits(values, np.zeros(len(values), np.intp), 1, checks=streams) * clusters


def _counts(failed: Floats | None, lost: Floats | None, cluster: NDArray[np.intp], clusters: int) -> Counts:
    nothing: list[Floats] = [np.empty(0)] * clusters

    def grouped(values: Floats | None) -> list[Floats]:
        if values is None:
            return nothing
        told = ~np.isnan(values)
        return [values[told & (cluster == each)] for each in range(clusters)]

    failures, losses = grouped(failed), grouped(lost)
    return Counts(
        judged=[len(each) for each in failures],
        failures=[int(each.sum()) for each in failures],
        scored=[len(each) for each in losses],
        score_mean=[1 - float(each.mean()) if len(each) else 0.0 for each in losses],
        score_variance=[float(each.var()) if len(each) else 0.0 for each in losses],
    )
