"""The threshold of the MEWMA for a declared average run length to false alarm, from a baseline's own samples.

Streams in which nothing is wrong are drawn from the calibration third by the stationary bootstrap (Politis, Romano,
JASA 89, 1994): runs of successive samples, since neighbours are alike. A finite baseline knows the means and spreads of
clusters only so well, so each stream has a truth of its own, drawn around the baseline by its `error`. In half of the
streams the mix of clusters is another one, drawn at random, and the truth is drawn by `doubt`. The threshold is the
larger of the one that gives the declared run length with the baseline's own mix and the one that gives 0.65 of
it with other mixes.

A run length longer than the simulation can show is extrapolated: its logarithm is linear in the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.detectors.conditional import Conditional
from palegreen.evaluators.detectors.mewma import BLOCKS, RATES, Averages, Calibration, Plan

HORIZON = 20_000
"""Longest simulated stream, in samples."""

_WORK = 3_200_000  # samples simulated in all
_STREAMS = (240, 480)  # at least, at most
_HORIZONS = 6  # length of a simulated stream over the run length
_SHORTEST = 1_500
_PILOT = 1_500  # samples from which Q is brought to one scale
_MEANS = 1_024  # drawn beforehand
_FIRST = 32  # samples: shorter run lengths are not asked for
_GRID = 120
_OTHER_MIX = 0.65  # of the declared run length


def calibrate(
    vectors: NDArray[Any],
    n_whitening: int,
    run_length: float,
    *,
    seed: int,
    clusters: NDArray[np.intp] | None = None,
    blocks: Sequence[slice] = BLOCKS,
    rates: Sequence[float] = RATES,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """From whitened vectors in order of time, (n, dimensions), whitened with `n_whitening` other samples.

    `clusters`: the prompt's cluster of each, from 0 on; None: all are alike. `progress` is told the share done.
    Raises ValueError, one line, if there are too few samples or they hold anything but finite numbers.
    """
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"vectors of shape {vectors.shape} to calibrate with; allowed: two samples or more")
    if not np.isfinite(vectors).all():
        raise ValueError(f"sample {int(np.argmin(np.isfinite(vectors).all(axis=1)))}: its vector holds NaN or infinity")
    plan = Plan.admitted(vectors.shape[1], n_whitening, rates=rates, blocks=blocks)
    vectors = vectors[:, : plan.dimensions]
    of = np.zeros(len(vectors), np.intp) if clusters is None else np.asarray(clusters, np.intp)
    if len(of) != len(vectors) or of.min() < 0:
        raise ValueError(f"{len(of)} clusters of {len(vectors)} vectors; allowed: one each, from 0 on")
    if not (vectors.std(axis=0) > 0).any():
        raise ValueError("the vectors to calibrate with are all the same")
    count = int(of.max()) + 1
    fitted = Conditional.fit(vectors, of, count, plan.blocks, n_whitening)
    null = _Null(vectors, of, plan, fitted, np.random.default_rng(seed))
    horizon = int(min(HORIZON, max(_HORIZONS * run_length, _SHORTEST)))
    streams = int(np.clip(_WORK // horizon, *_STREAMS)) // 2
    mean, q, peaks = null.simulate(streams, horizon, progress)
    own, other = Curve.of(peaks[:, :streams]), Curve.of(peaks[:, streams:])
    threshold, how = own.threshold(run_length)
    if count > 1:
        threshold = max(threshold, other.threshold(_OTHER_MIX * run_length)[0])
    return Calibration(
        plan=plan,
        conditional=fitted,
        mean=mean,
        q=q,
        threshold=threshold,
        run_length=run_length,
        curve=np.stack([own.thresholds, own.run_lengths, np.interp(own.thresholds, *other)]),
        horizon=horizon,
        streams=streams,
        how=how,
    )


class Curve(NamedTuple):
    """Average run length by threshold, both rising."""

    thresholds: NDArray[np.float64]
    run_lengths: NDArray[np.float64]

    @classmethod
    def of(cls, peaks: NDArray[Any]) -> Curve:
        """From the highest value so far of each stream, (samples, streams).

        Streams that have not alarmed at the end go on at the rate of alarms of their second half. Thresholds at which
        fewer than half of the streams alarm say too little.
        """
        horizon = len(peaks)
        low, high = (float(np.median(peaks[at])) for at in (_FIRST, -1))
        thresholds = np.linspace(low, high, _GRID)
        lengths = []
        for threshold in thresholds:
            first = 1 + np.argmax(peaks > threshold, axis=0)
            ended = peaks[-1] > threshold
            first[~ended] = horizon
            late = first > horizon // 2
            exposed = (first[late] - horizon // 2).sum()
            onward = exposed / max(1, np.count_nonzero(ended & late))
            lengths.append(first.mean() + (~ended).mean() * onward)
        return cls(thresholds, np.maximum.accumulate(np.array(lengths)))

    def threshold(self, run_length: float) -> tuple[float, str]:
        """The threshold of a run length, and how it was found."""
        longest = float(self.run_lengths[-1])
        logs = np.log(self.run_lengths)
        if run_length <= longest:
            return float(np.interp(math.log(run_length), logs, self.thresholds)), "simulated"
        fit = self.run_lengths > longest / 25
        slope, level = np.polyfit(self.thresholds[fit], logs[fit], 1)
        how = f"extrapolated log-linearly from run lengths of {longest / 25:.0f} to {longest:.0f} samples"
        return float((math.log(run_length) - level) / slope), how


class _Null:
    """Streams in which nothing is wrong."""

    def __init__(
        self,
        vectors: NDArray[np.float64],
        clusters: NDArray[np.intp],
        plan: Plan,
        fitted: Conditional,
        draw: np.random.Generator,
    ) -> None:
        self._plan, self._fitted, self._draw = plan, fitted, draw
        self._clusters, self._members = clusters, np.bincount(clusters, minlength=len(fitted.centre))
        means = np.zeros(fitted.centre.shape)
        np.add.at(means, clusters, vectors)
        means /= np.maximum(self._members, 1)[:, None]
        # A cluster's own mean takes one degree of freedom of it.
        sizes = self._members[clusters][:, None]
        noise = (vectors - means[clusters]) / fitted.scale[clusters] * np.sqrt(sizes / np.maximum(sizes - 1, 1))
        # The mean of all of them is 0, so the mean of some, drawn without replacement, varies too little, by 1 / n of
        # their variance. That is put back, as one draw for each time that all are used up.
        n = len(noise)
        self._noise = (noise * math.sqrt(1 - 1 / n)).astype(np.float32)
        self._lost = (draw.normal(size=(_MEANS, n)) @ noise / n).astype(np.float32)
        self._jump = 1 / max(1.0, len(vectors) ** (1 / 3))

    def _paths(self, streams: int, length: int) -> NDArray[np.intp]:
        """Samples of streams, (length, streams): runs of successive ones in random order, over and over.

        With replacement runs would overlap now and then, and the same samples twice in one average are what no stream
        of independent ones has: thresholds of long run lengths would be too high.
        """
        n = len(self._noise)
        at, rounds = np.arange(n)[:, None], []
        for _ in range(-(-length // n)):
            jumps = self._draw.random((n, streams), np.float32) < self._jump
            since = np.maximum.accumulate(np.where(jumps, at, 0), axis=0)
            turn = np.take_along_axis(self._draw.random((n, streams), np.float32), since, axis=0)
            rounds.append((np.argsort(turn, axis=0, kind="stable") + self._draw.integers(n, size=streams)) % n)
        return np.concatenate(rounds)[:length]

    def _mixed(self, streams: int, length: int) -> NDArray[np.intp]:
        """Clusters, (length, streams), with a mix of its own for each stream, from all that there can be."""
        weights = self._draw.exponential(size=(streams, len(self._members))) * (self._members > 0)
        bounds = np.cumsum(weights, axis=1)
        bounds /= bounds[:, -1:]
        picked = self._draw.random((streams, length))
        drawn = np.stack([np.searchsorted(bounds[at], picked[at]) for at in range(streams)], axis=1)
        return np.asarray(np.minimum(drawn, len(self._members) - 1))

    def _truths(self, streams: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where the means of clusters may really lie beside their centres, and their spreads beside their scales.

        (streams, clusters, dimensions) each, after scaling. In the second half of the streams what clusters are made of
        has changed, too.
        """
        fitted, sizes = self._fitted, [block.stop - block.start for block in self._plan.blocks]
        clusters, dimensions = fitted.centre.shape
        apart = np.empty((streams, clusters, dimensions), np.float32)
        for at, block in enumerate(self._plan.blocks):
            normal = self._draw.normal(size=(streams, clusters, sizes[at]))
            apart[: streams // 2, :, block] = fitted.error[:, at] @ normal[: streams // 2]
            apart[streams // 2 :, :, block] = fitted.doubt[:, at] @ normal[streams // 2 :]
        spread = np.exp(self._draw.normal(size=(streams, clusters, len(sizes))) * fitted.spread_error / 2)
        return apart, np.repeat(spread.astype(np.float32), sizes, axis=2)

    def simulate(
        self, streams: int, horizon: int, progress: Callable[[float], None] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Mean and scale of Q, (rates, blocks); highest value so far, (horizon, 2 streams), own mix and other mixes."""
        every = np.arange(2 * streams)
        apart, spread = self._truths(2 * streams)
        path = self._paths(2 * streams, horizon)
        lost = self._draw.integers(_MEANS, size=(-(-horizon // len(self._noise)), 2 * streams))
        cluster = self._clusters[path]
        cluster[:, streams:] = self._mixed(streams, horizon)
        doubt = self._fitted.doubt.astype(np.float32)
        averages = Averages(self._plan, doubt, 2 * streams)
        behind = doubt.reshape(len(doubt), -1)
        rows = np.zeros((2 * streams, averages.width), np.float32)

        def step(at: int) -> NDArray[Any]:
            vectors = rows[:, : self._plan.dimensions]
            np.add(self._noise[path[at]], self._lost[lost[at // len(self._noise)]], out=vectors)
            vectors *= spread[every, cluster[at]]
            vectors += apart[every, cluster[at]]
            rows[:, self._plan.dimensions :] = behind[cluster[at]]
            return averages.push(rows)

        pilot = np.stack([step(at)[:streams] for at in range(_PILOT)])
        mean = pilot.mean(axis=(0, 1), dtype=np.float64)
        q = np.median(pilot.max(axis=0), axis=0) - mean
        averages.reset()
        values = np.empty((horizon, 2 * streams), np.float32)
        low, scale = mean.astype(np.float32), (1 / q).astype(np.float32)
        for at in range(horizon):
            values[at] = ((step(at) - low) * scale).max(axis=(1, 2))
            if progress is not None and at % 200 == 0:
                progress(at / horizon)
        np.maximum.accumulate(values, axis=0, out=values)
        return mean, q, values
