"""All e-detectors of one replica at once: every check and score, over all samples and in each segment.

The arithmetic is that of `detectors.edetector`, done for all rows together: one by one, a hundred would cost as many
microseconds. Evidence is averaged with weights fixed beforehand, which is valid under any dependence: half for the rows
over all samples, half for those of segments, so that naming segments costs what is seen in all traffic little.

A row's evidence begins with the first sample that took Page's cumulative sum of the same bet off nought ("Continuous
inspection schemes", Biometrika 41, 1954): the next number may be another replica's, or one of which the check says
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.manifest import Manifest, Normal
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.detectors.edetector import BETS, CAP, HOPELESS, ratio
from palegreen.evaluators.detectors.mewma import State

_BETS = np.array(BETS, np.float32)
_REST = 1 - _BETS
_SHARES = np.full(len(BETS), 1 / len(BETS), np.float32)
_BACKGROUND = 50
"""Evidence that is there while nothing is wrong, and some more: M is 16 after many samples that all pass."""
_SLOW = 1
"""The bet of the cumulative sum: a slow one. What a fast one sees needs no search for its beginning."""


class Row(NamedTuple):
    """One e-detector: of a check's failures, or of its score; in a segment, or empty for all samples."""

    segment: str
    check: str
    stream: int


class _Inside(NamedTuple):
    """Rows that take a sample: which, of which streams, one over their limits by cluster, and their caps."""

    which: NDArray[np.intp]
    streams: NDArray[np.intp]
    inverse: NDArray[np.float32]
    caps: NDArray[np.float32]


class Rows:
    """Which e-detectors a baseline gives rise to, and their limits; shared by all replicas."""

    def __init__(self, manifest: Manifest, clusters: int, run_length: float) -> None:
        self.run_length = run_length
        self.failures: dict[str, int] = {}
        self.losses: dict[str, int] = {}
        found: list[Row] = []
        limits: list[list[float]] = []
        for segment, normal in (("", manifest.normal), *sorted(manifest.segments.items())):
            for check, stream, limit in self._streams(normal):
                if len(limit) != clusters:
                    raise ValueError(f"{check} has {len(limit)} limits; the baseline has {clusters} clusters")
                if min(limit) < HOPELESS:
                    found.append(Row(segment, check, stream))
                    limits.append(limit)
        self.rows = tuple(found)
        self._usual = {check: manifest.usual[check] for check in self.losses}
        self.streams = len(self.failures) + len(self.losses)
        self.clusters = clusters
        table = np.array(limits, np.float32).reshape(len(found), clusters).T
        self.limits = np.where(table < HOPELESS, table, np.float32(np.nan))
        """(clusters, rows), NaN where nothing can be exceeded."""
        self.of_stream = np.array([row.stream for row in found], np.intp)
        whole = np.array([not row.segment for row in found], np.bool_)
        shares = np.where(whole, 1 / max(1, whole.sum()), 1 / max(1, (~whole).sum()))
        self.weights = shares / (2 if whole.any() and not whole.all() else 1)
        self.caps = (CAP * run_length / self.weights).astype(np.float32)[:, None]
        self.inside = lru_cache(maxsize=1024)(self._inside)
        """Rows that take samples of these segments, given as a tuple."""
        self.checks = tuple(dict.fromkeys(row.check for row in found))

    def _streams(self, normal: Normal) -> list[tuple[str, int, list[float]]]:
        found = []
        for streams, limits in ((self.failures, normal.limit), (self.losses, normal.loss_limit)):
            for check, limit in limits.items():
                if check not in streams:
                    streams[check] = len(self.failures) + len(self.losses)
                found.append((check, streams[check], limit))
        return found

    def _inside(self, segments: tuple[str, ...]) -> _Inside:
        wanted = ("", *segments)
        which = np.array([at for at, row in enumerate(self.rows) if row.segment in wanted], np.intp)
        inverse: NDArray[np.float32] = (1 / self.limits[:, which]).astype(np.float32)
        return _Inside(which, self.of_stream[which], inverse, self.caps[which])

    def values(self, outcomes: Mapping[str, Outcome | None], scalars: Mapping[str, float]) -> NDArray[np.float32]:
        """Of one sample by stream, in [0, 1], high ones bad; NaN where a check says nothing."""
        values = np.full(self.streams, np.nan, np.float32)
        for check, outcome in outcomes.items():
            if outcome is None:
                continue
            passed, score, _ = outcome
            if passed is not None and (stream := self.failures.get(check)) is not None:
                values[stream] = not passed
            if score is not None and (stream := self.losses.get(check)) is not None:
                values[stream] = self._beyond(check, 1 - score)
        for channel, value in scalars.items():
            if (stream := self.losses.get(channel)) is not None:
                values[stream] = self._beyond(channel, value)
        return values

    def _beyond(self, name: str, value: float) -> float:
        """As `scalars.bounded`, of one value."""
        median, reach = self._usual[name]
        return min(max((value - median) / reach, 0.0), 1.0)


class Evidence:
    """What has been seen on one replica."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        n = len(rows.rows)
        self._evidence = np.zeros((n, len(_BETS)), np.float32)
        self._mean = np.zeros(n)
        self._sum = np.zeros(n, np.float32)
        self._since = np.zeros(n, np.int64)

    def update(
        self, values: NDArray[np.float32], cluster: int, segments: tuple[str, ...], number: int
    ) -> tuple[float, NDArray[np.bool_]]:
        """Take a sample; the `ratio` of the whole, and in which streams it is beyond its limit, (streams,)."""
        rows = self._rows
        inside = rows.inside(segments)
        beyond = values[inside.streams] * inside.inverse[cluster]
        told = (beyond >= 0).nonzero()[0]
        which, beyond = inside.which[told], beyond[told]
        factor = beyond[:, None] * _BETS + _REST
        grown = self._evidence[which]
        grown += 1
        grown *= factor
        np.minimum(grown, inside.caps[told], out=grown)
        self._evidence[which] = grown
        self._mean[which] = grown @ _SHARES
        before = self._sum[which]
        total = before + np.log(factor[:, _SLOW])
        over = total > 0
        self._sum[which] = total * over
        self._since[which[over & (before == 0)]] = number
        high = np.zeros(rows.streams, np.bool_)
        high[inside.streams[told[beyond > 1]]] = True
        return self.ratio, high

    @property
    def ratio(self) -> float:
        """Of the average: how far log M has come to log A from where it rests."""
        return ratio(float(self._rows.weights @ self._mean), self._rows.run_length)

    def by_check(self) -> dict[str, float]:
        """The `ratio` of what each check adds to the average: above 1 it would alarm alone."""
        found = dict.fromkeys(self._rows.checks, 0.0)
        added = self._rows.weights * self._mean
        for row, each in zip(self._rows.rows, added.tolist(), strict=True):
            found[row.check] = max(found[row.check], each)
        return {check: ratio(each, self._rows.run_length) for check, each in found.items()}

    def strongest(self) -> list[tuple[Row, int]]:
        """The rows with the most evidence of their own, if it is any to speak of, and since when they have it."""
        order = np.argsort(-self._mean, kind="stable")
        least = max(math.sqrt(self._rows.run_length), _BACKGROUND)
        return [(self._rows.rows[at], int(self._since[at])) for at in order.tolist() if self._mean[at] >= least]

    def reset(self) -> None:
        """Forget what was seen, not what is normal."""
        for array in (self._evidence, self._mean, self._sum):
            array[:] = 0

    def state(self) -> State:
        """What was seen, to go on from after a restart."""
        return {"evidence": self._evidence.copy(), "sum": self._sum.copy(), "since": self._since.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state. Raises ValueError or KeyError, if it is not one of these rows."""
        evidence, total, since = state["evidence"], state["sum"], state["since"]
        shapes = (self._evidence.shape, self._sum.shape, self._since.shape)
        if (evidence.shape, total.shape, since.shape) != shapes:
            raise ValueError("evidence of other checks")
        if not ((evidence >= 0) & (evidence <= self._rows.caps)).all() or not np.isfinite(total).all():
            raise ValueError("evidence that is no number")
        self._evidence[:], self._sum[:], self._since[:] = evidence, total, since
        self._mean[:] = self._evidence @ _SHARES


def named(rows: Sequence[Row]) -> tuple[str, ...]:
    """Their checks, each once."""
    return tuple(dict.fromkeys(row.check for row in rows))
