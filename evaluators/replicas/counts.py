"""Counters of projected responses and prompts, by replica: what peer comparison in Prometheus is made of.

Sums and sums of squares merge over replicas and over time, so that a mean and a variance over any window and any set
of replicas come from their increases. How far two means lie apart by chance alone does not follow from them where
features are correlated, or samples are. So each replica also counts the squared distance of the means of successive
batches of its own samples: its mean and variance over all replicas are those of the peers' statistic when nothing
differs (Box 1954 for the distribution that they give; batch means against correlation as in Alexopoulos and Seila
1996).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.ledger import Labels
from palegreen.evaluators.replicas.projection import CLIP, DIMENSIONS, Projection
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

Floats = NDArray[np.float64]
Channel = Literal["response", "prompt"]
CHANNELS: tuple[Channel, ...] = ("response", "prompt")
BATCH = 16
"""Samples of a batch: correlation that reaches further is not seen."""
MOST = 200
"""Replicas (with their models and endpoints) that are counted; 16 KB of memory each, and 270 series."""
_WARM = 64  # samples until variances are known well enough to scale distances
_MEMORY = 512  # samples that the variances are of
_LEAST_VARIANCE = 1e-3
_JUMP = 200.0  # a distance beyond it is a change, not chance: it would hide for a day what changed
_DIMS = tuple(str(dim) for dim in range(DIMENSIONS))


class _Counts:
    """Of one replica and channel. What only grows is never computed by a difference: a counter must not fall."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums = np.zeros(DIMENSIONS)
        self.squares = np.zeros(DIMENSIONS)
        self.batches = 0
        self.distance = 0.0
        self.distance_square = 0.0
        self.shown: Readings | None = None
        self._begun = np.zeros((2, DIMENSIONS))  # sums and squares when the batch began
        self._moments = np.zeros((2, DIMENSIONS))  # mean of features and of their squares, of late
        self._last: Floats | None = None  # mean of the batch before

    def add(self, features: Floats) -> None:
        self.samples += 1
        self.sums += features + CLIP
        self.squares += features * features
        self.shown = None
        if self.samples % BATCH == 0:
            self._close()

    def _close(self) -> None:
        ended = np.stack([self.sums, self.squares])
        means = (ended - self._begun) / BATCH
        means[0] -= CLIP
        self._moments += max(BATCH / self.samples, BATCH / _MEMORY) * (means - self._moments)
        if self._last is not None and self.samples >= _WARM:
            variance = np.maximum(self._moments[1] - self._moments[0] ** 2, _LEAST_VARIANCE)
            distance = float(((means[0] - self._last) ** 2 / variance).sum() * BATCH / 2)
            if distance <= _JUMP:
                self.batches += 1
                self.distance += distance
                self.distance_square += distance * distance
        self._begun, self._last = ended, means[0]


class Projections:
    """Counters of all replicas of which this evaluator sees samples.

    `known` are labels whose counters are there from the start, so that increase() sees the first sample.
    """

    def __init__(self, projection: Projection, known: Labels | None = None) -> None:
        self._projection = projection
        self._counts: dict[tuple[Labels, Channel], _Counts] = {}
        self._full = False
        if known is not None:
            self._of(known)

    def add(self, labels: Labels, vectors: VectorsOf) -> bool:
        """One sample's unit vectors; False if they are not finite and were left out."""
        if not self._of(labels):
            return True
        projected = {channel: self._projection(vectors[channel]) for channel in CHANNELS if channel in vectors}
        if not all(np.isfinite(features).all() for features in projected.values()):
            return False
        for channel, features in projected.items():
            self._counts[labels, channel].add(features)
        return True

    def show(self, collected: Collected) -> None:
        """Add all series."""
        for (labels, channel), counts in self._counts.items():
            if counts.shown is None:
                counts.shown = _readings(counts, labels, channel, self._projection.basis)
            collected.include(counts.shown)

    def _of(self, labels: Labels) -> bool:
        if (labels, CHANNELS[0]) in self._counts:
            return True
        if len(self._counts) >= MOST * len(CHANNELS):
            if not self._full:
                log.warning("replicas.too_many", most=MOST, effect="further replicas are not compared")
            self._full = True
            return False
        self._counts |= {(labels, channel): _Counts() for channel in CHANNELS}
        return True


def _readings(counts: _Counts, labels: Labels, channel: Channel, basis: str) -> Readings:
    now = Collected(*labels, channel, basis)
    now.add("palegreen_drift_samples_total", counts.samples)
    for name, values in (("sum", counts.sums), ("square_sum", counts.squares)):
        for dim, value in zip(_DIMS, values.tolist(), strict=True):
            now.add(f"palegreen_drift_projection_{name}_total", value, dim)
    now.add("palegreen_drift_batches_total", counts.batches)
    now.add("palegreen_drift_batch_distance_sum_total", counts.distance)
    now.add("palegreen_drift_batch_distance_square_sum_total", counts.distance_square)
    return now.readings()
