"""Multi-rate MEWMA: has the mean, or the spread, of whitened vectors moved, abruptly or slowly?

An exponentially weighted moving average of the vectors for each of several rates r,

    S_r <- (1 - r) S_r + r u,

and for each block b of dimensions its squared length over its variance while nothing has changed,

    Q_{r,b} = |S_{r,b}|^2 / (r / (2 - r) (1 - (1 - r)^(2t)) + v_{r,b}).

Fast rates catch cliffs, slow ones slides; small blocks catch what moves the leading components, large ones what moves
everything. `v` is the variance that comes of the baseline being finite (see `conditional.py`): it depends on which
clusters of prompts the average is made of, so that questions of a kind of which the baseline has few samples count for
less, and asking other questions than before is not an alarm. The ratio is max (Q - mean) / q over the threshold, all
three from the calibration.

Lowry, Woodall, Champ, Rigdon, "A multivariate exponentially weighted moving average control chart", Technometrics 34,
1992. Several rates: Keriven, Garreau, Poli, "NEWMA: a new method for scalable model-free online change-point
detection", IEEE Transactions on Signal Processing 68, 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.detectors.conditional import Conditional

RATES = (1 / 8, 1 / 24, 1 / 72, 1 / 200)
BLOCKS = (slice(0, 16), slice(16, 64), slice(64, 128))

State = dict[str, NDArray[Any]]

_NOTHING = np.empty(0)
_SETTLED = 1e-12  # what is left of the start-up, beside 1


class Plan(NamedTuple):
    """Which rates and which contiguous blocks of dimensions, from 0 on, are looked at."""

    rates: tuple[float, ...]
    blocks: tuple[slice, ...]

    @property
    def dimensions(self) -> int:
        """How many of a vector's dimensions are looked at."""
        return int(self.blocks[-1].stop)

    @classmethod
    def admitted(
        cls,
        dimensions: int,
        n_whitening: int,
        *,
        rates: Sequence[float] = RATES,
        blocks: Sequence[slice] = BLOCKS,
    ) -> Plan:
        """What a baseline whitened with this many samples bears.

        A rate averages about 2/r samples: at most half of those that the baseline's mean is of, else it is the
        baseline's own error that alarms. Of dimensions a quarter as many as samples. Raises ValueError if none is left.
        """
        kept = tuple(rate for rate in sorted(rates, reverse=True) if 2 / rate <= n_whitening / 2)
        most = min(dimensions, n_whitening // 4)
        cut = tuple(slice(block.start, min(block.stop, most)) for block in blocks if block.start < most)
        if not kept or not cut:
            raise ValueError(
                f"{n_whitening} samples to whiten with and {dimensions} dimensions bear no rate or no block"
            )
        return cls(kept, cut)


class Averages:
    """The moving averages of one or many streams, and Q of each rate and block.

    A row is a vector and, behind it, its cluster's doubt, so that one average holds both.
    """

    def __init__(self, plan: Plan, doubt: NDArray[Any], streams: int = 1) -> None:
        """`doubt`: (clusters, blocks, clusters), of the type that is calculated with."""
        clusters, blocks, _ = doubt.shape
        self.width = plan.dimensions + blocks * clusters
        self.sums = np.zeros((streams, len(plan.rates), self.width), doubt.dtype)
        self.left = np.ones((len(plan.rates), 1))
        """(1 - r)^t by rate."""
        self._rates = np.array(plan.rates)[:, None]
        self._gain, self._keep = self._rates.astype(doubt.dtype), (1 - self._rates).astype(doubt.dtype)
        self._squares = np.empty_like(self.sums)
        # From squares to the squared length of a block, and of its doubt.
        self._fold = np.zeros((self.width, 2 * blocks), doubt.dtype)
        for at, block in enumerate(plan.blocks):
            self._fold[block, at] = 1
            self._fold[plan.dimensions + at * clusters :][:clusters, blocks + at] = 1
        self._blocks = blocks
        self._own = np.zeros(self.left.shape, doubt.dtype)

    def push(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Take one row of each stream, (streams, width); Q, (streams, rates, blocks)."""
        np.multiply(rows[:, None], self._gain, out=self._squares)
        self.sums *= self._keep
        self.sums += self._squares
        if self.left[-1, 0] > _SETTLED:
            self.left *= 1 - self._rates
            self._vary()
        np.multiply(self.sums, self.sums, out=self._squares)
        folded = self._squares @ self._fold
        variance = folded[..., self._blocks :] + self._own
        q: NDArray[Any] = folded[..., : self._blocks] / variance
        return q

    def _vary(self) -> None:
        self._own = (self._rates / (2 - self._rates) * (1 - self.left**2)).astype(self.sums.dtype)

    def set(self, sums: NDArray[Any], left: NDArray[Any]) -> None:
        """Go on from these averages."""
        self.sums[:], self.left[:] = sums, left
        self._vary()

    def reset(self) -> None:
        """Forget everything."""
        self.sums[:], self.left[:] = 0, 1


class Calibration(NamedTuple):
    """What the detector needs, and how it came about. `curve`: rows of thresholds and of the average run lengths that
    they give with the baseline's own mix of prompts and with other mixes."""

    plan: Plan
    conditional: Conditional
    mean: NDArray[np.float64]
    q: NDArray[np.float64]
    threshold: float
    run_length: float
    curve: NDArray[np.float64]
    horizon: int
    streams: int
    how: str

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As plain arrays, for an npz."""
        blocks = [(block.start, block.stop) for block in self.plan.blocks]
        plain = self._asdict() | self.conditional._asdict() | {"rates": self.plan.rates, "blocks": blocks}
        return {name: np.array(value) for name, value in plain.items() if name not in ("plan", "conditional")}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration:
        """From `arrays`. Raises KeyError naming the one that is missing."""
        blocks = tuple(slice(int(start), int(stop)) for start, stop in arrays["blocks"])
        plan = Plan(tuple(map(float, arrays["rates"])), blocks)
        conditional = Conditional(*(arrays[name] for name in Conditional._fields))
        return cls(
            plan=plan,
            conditional=conditional,
            mean=arrays["mean"],
            q=arrays["q"],
            threshold=float(arrays["threshold"]),
            run_length=float(arrays["run_length"]),
            curve=arrays["curve"],
            horizon=int(arrays["horizon"]),
            streams=int(arrays["streams"]),
            how=str(arrays["how"]),
        )


class Mewma:
    """One stream, 2 to 8 KB. `update` takes a sample's whitened vector and its prompt's cluster."""

    def __init__(self, calibration: Calibration) -> None:
        fitted = calibration.conditional
        self._dimensions = calibration.plan.dimensions
        self._centre, self._inverse = fitted.centre, 1 / fitted.scale
        self._doubt = fitted.doubt.reshape(len(fitted.doubt), -1)
        self._averages = Averages(calibration.plan, fitted.doubt)
        self._mean, self._scale = calibration.mean, 1 / (calibration.q * calibration.threshold)
        self._ratio = 0.0
        self._row = np.zeros((1, self._averages.width))
        self._vector, self._behind = self._row[0, : self._dimensions], self._row[0, self._dimensions :]

    def update(self, vector: NDArray[Any], cluster: int = 0) -> float:
        """The ratio of the statistic to its threshold: above 1 is an alarm. Raises ValueError, one line.

        A prompt outside the baseline's clusters changes nothing: of it the baseline cannot say what is normal.
        """
        if not 0 <= cluster < len(self._centre):
            return self._ratio
        vector = vector[: self._dimensions]
        if not math.isfinite(vector.dot(vector)):
            raise ValueError("the vector of a sample holds NaN or infinity; the sample is left out")
        np.subtract(vector, self._centre[cluster], out=self._vector)
        self._vector *= self._inverse[cluster]
        self._behind[:] = self._doubt[cluster]
        q = self._averages.push(self._row)
        q -= self._mean
        q *= self._scale
        self._ratio = float(q.max())
        return self._ratio

    def reset(self) -> None:
        """Forget what was seen, not what is normal."""
        self._averages.reset()
        self._ratio = 0.0

    def state(self) -> State:
        """What was seen, to go on from after a restart."""
        averages = self._averages
        return {"sums": averages.sums[0].copy(), "left": averages.left[:, 0].copy(), "ratio": np.array(self._ratio)}

    def restore(self, state: State) -> None:
        """Go on from a state. Raises ValueError, one line, if it is of another shape, or not of numbers."""
        sums, left, ratio = (state.get(name, _NOTHING) for name in ("sums", "left", "ratio"))
        averages = self._averages
        if sums.shape != averages.sums.shape[1:] or left.shape != (len(averages.left),) or ratio.shape:
            raise ValueError(f"state of shape {sums.shape}; this baseline's is {averages.sums.shape[1:]}")
        if not (np.isfinite(sums).all() and np.isfinite(ratio) and ((left >= 0) & (left <= 1)).all()):
            raise ValueError("the state holds something that is no number")
        averages.set(sums, left[:, None])
        self._ratio = float(ratio)
