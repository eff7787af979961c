"""Each replica beside the others, from the counters that the rules of docs/replicas.md read: no baseline is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.demo.live import Samples, total

EVERY = 10.0
"""Seconds between two looks."""
WINDOW = 30
"""Looks that are compared: five minutes of the demo."""
LEAST = 20
"""Answers on each side, at least. The rules want 50, and an hour."""
THRESHOLD = 80.0
"""Of chi-squared with 32 degrees of freedom, which is beyond 80 once in 200,000 times."""
_SHIFT = 5.0  # what is added to each feature, for a sum that never falls


class Sums(NamedTuple):
    """Counters of one replica and channel: how many, sums and sums of squares by dimension."""

    answers: float
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


class Peers:
    """Looks again and again; says which replica differs from the others, once until it is over."""

    def __init__(self) -> None:
        self._seen: deque[list[dict[str, Sums]]] = deque(maxlen=WINDOW)
        self._named = -1

    def look(self, scraped: Sequence[Samples]) -> str:
        """Take what is scraped of each replica now; a line if a replica has begun to differ or does no more."""
        now = [{channel: _sums(samples, channel) for channel in ("response", "prompt")} for samples in scraped]
        if self._seen and any(_began_anew(*each) for each in zip(self._seen[-1], now, strict=True)):
            self._seen.clear()
        self._seen.append(now)
        before = self._seen[0]
        grown = {
            channel: [_grown(old[channel], new[channel]) for old, new in zip(before, now, strict=True)]
            for channel in ("response", "prompt")
        }
        distances = {channel: [distance(at, each) for at in range(len(each))] for channel, each in grown.items()}
        worst = int(np.argmax(distances["response"]))
        differs = distances["response"][worst] > THRESHOLD and max(distances["prompt"]) <= THRESHOLD
        was, self._named = self._named, worst if differs else -1
        if differs and was != worst:
            squared = distances["response"][worst]
            named = f"replica {worst + 1} differs from the others"
            return f"peers    {named} (T squared {squared:.0f}, usual below {THRESHOLD:.0f})"
        return "peers    the replicas are alike again" if was >= 0 and not differs else ""


def distance(at: int, replicas: Sequence[Sums]) -> float:
    """T-squared of one replica against the rest (docs/replicas.md); 0 while there are too few answers to tell."""
    rest = [each for number, each in enumerate(replicas) if number != at]
    one, others = replicas[at], Sums(*(sum(parts) for parts in zip(*rest, strict=True)))
    if min(one.answers, others.answers) < LEAST:
        return 0.0
    means = [each.sums / each.answers - _SHIFT for each in (one, others)]
    variances = [each.squares / each.answers - mean**2 for each, mean in zip((one, others), means, strict=True)]
    pooled = (one.answers * variances[0] + others.answers * variances[1]) / (one.answers + others.answers)
    spread = np.maximum(pooled, 1e-6) * (1 / one.answers + 1 / others.answers)
    return float(((means[0] - means[1]) ** 2 / spread).sum())


def _sums(samples: Samples, channel: str) -> Sums:
    def by_dimension(name: str) -> NDArray[np.float64]:
        found = {int(labels["dim"]): value for labels, value in samples.get(name, ()) if labels["channel"] == channel}
        return np.array([found.get(dim, 0.0) for dim in range(32)])

    return Sums(
        total(samples, "palegreen_drift_samples_total", channel=channel),
        by_dimension("palegreen_drift_projection_sum_total"),
        by_dimension("palegreen_drift_projection_square_sum_total"),
    )


def _grown(old: Sums, new: Sums) -> Sums:
    return Sums(new.answers - old.answers, new.sums - old.sums, new.squares - old.squares)


def _began_anew(old: dict[str, Sums], new: dict[str, Sums]) -> bool:
    """Whether the counters of a replica were set back: its scorer was started again."""
    return any(new[channel].answers < old[channel].answers for channel in old)
