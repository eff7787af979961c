"""Shiryaev-Roberts e-detector: has the rate of a failing check, or the mean of a bounded score, risen above its limit?

    M_t = (M_{t-1} + 1) (1 + l (x_t - m)),    0 <= x_t <= 1,    0 <= l < 1 / m,

averaged over several l, alarms at M >= A. As long as the mean of x_t given the past is at most m, the expected number
of samples to a false alarm is at least A: without independence, without asymptotics, without a simulation. m is the
limit of the prompt's cluster, so asking other questions is not an alarm (`bounds.py`). For a check that passes or fails
the factor is the likelihood ratio of a rate p = m + l m (1 - m) against m.

Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", New England Journal of
Statistics in Data Science 2, 2024. Betting: Shekhar, Ramdas, "Nonparametric two-sample testing by betting", IEEE
Transactions on Information Theory 70, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from palegreen.evaluators.detectors.mewma import State

BETS = (0.02, 0.08, 0.3, 0.8)
"""l m: the alternatives, for a check the share of the way from m to 1."""

REST = sum((1 - bet) / bet for bet in BETS) / len(BETS)
"""Where evidence comes to rest if a check always passes: M = (M + 1) (1 - l m)."""

CAP = 100.0
"""Evidence over its threshold at most, so that an alarm ends soon after its cause."""

HOPELESS = 0.98
"""A limit so near to one cannot be exceeded: the cluster says nothing."""


class EDetector:
    """One check or score in one segment. `limits`: m of each prompt cluster; `run_length`: A, in samples.

    Scores of which low ones are bad are given as one minus themselves.
    """

    def __init__(self, limits: Sequence[float], run_length: float) -> None:
        if not run_length > REST:
            raise ValueError(f"run length of {run_length:g} samples; allowed: above {REST:.0f}")
        if not all(0 < limit <= 1 for limit in limits):
            raise ValueError("a limit is not above 0 and at most 1")
        # The factor is start + slope x.
        self._factors = [
            [(1 - bet, bet / limit) for bet in BETS] if limit < HOPELESS else None for limit in map(float, limits)
        ]
        self._run_length = run_length
        self._most = CAP * run_length
        self._evidence = [0.0] * len(BETS)

    @property
    def evidence(self) -> float:
        """M, which `combine` averages over detectors."""
        return sum(self._evidence) / len(BETS)

    def update(self, value: float, cluster: int = 0) -> float:
        """Take a value in [0, 1]; its `ratio`. Raises ValueError, one line.

        A prompt outside the baseline's clusters changes nothing: of it the baseline cannot say what is normal.
        """
        if not 0 <= value <= 1:
            raise ValueError(f"value {value:g} of a check; allowed: 0 to 1; the sample is left out")
        if 0 <= cluster < len(self._factors) and (factors := self._factors[cluster]) is not None:
            self._evidence = [
                min((evidence + 1) * (start + slope * value), self._most)
                for evidence, (start, slope) in zip(self._evidence, factors, strict=True)
            ]
        return ratio(self.evidence, self._run_length)

    def reset(self) -> None:
        """Forget what was seen, not what is normal."""
        self._evidence = [0.0] * len(BETS)

    def state(self) -> State:
        """What was seen, to go on from after a restart."""
        return {"evidence": np.array(self._evidence)}

    def restore(self, state: State) -> None:
        """Go on from a state. Raises ValueError, one line, if it is not one of this detector."""
        evidence = state.get("evidence", np.empty(0))
        if evidence.shape != (len(BETS),) or not ((evidence >= 0) & (evidence <= self._most)).all():
            raise ValueError(
                f"state of shape {evidence.shape}; allowed: ({len(BETS)},), evidence from 0 to {self._most:g}"
            )
        self._evidence = evidence.tolist()


def ratio(evidence: float, run_length: float) -> float:
    """Evidence as published: how far log M has come to log A from where it rests, log(M / REST) / log(A / REST).

    From 0 on, above 1 is an alarm.
    """
    return math.log(max(evidence, REST) / REST) / math.log(run_length / REST)
