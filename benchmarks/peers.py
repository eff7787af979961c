"""Peer comparison on real answers: false alarms without a fault, and the delay until a faulty replica is named.

    python benchmarks/peers.py SAMPLES.jsonl [--fault FAULTY.jsonl] [--embedder static] [--hours 1000]

Replicas draw (prompt, answer) pairs of the recorded samples with replacement, so that nothing differs between them. The
formulas are those of catalogue/peers.yaml in numpy, every five minutes over the hour before. Faults change the answers
of one replica: cut to ten words, or words in disorder.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.replicas.counts import BATCH
from palegreen.evaluators.replicas.projection import DIMENSIONS, projection

Floats = NDArray[Any]
STEPS = 12  # evaluations an hour
MEMORY = 24 * STEPS
PRIOR = 20.0
LEAST = 50
JUMP = 200.0


def features(texts: Sequence[str], name: str) -> Floats:
    """Projected texts, shape (n, 32)."""
    chosen = embedder(name, 1)
    assert chosen is not None
    project = projection(chosen)
    assert project is not None
    return np.array([project(row) for row in chosen.embed(texts)])


def recorded(path: Path) -> list[dict[str, Any]]:
    """Recorded samples with an answer."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if record["response"].strip()]


def _answers(path: Path) -> list[str]:
    return [record["response"] for record in recorded(path)]


def rolled(sums: Floats, steps: int) -> Floats:
    """Sums over the trailing `steps` of axis 0; shorter at the beginning."""
    total = np.cumsum(sums, axis=0)
    before = np.zeros_like(total)
    before[steps:] = total[:-steps]
    return total - before


class Channel:
    """T2 and its thresholds at every step, from features (samples, 32) with the step and replica of each."""

    def __init__(
        self, drawn: Floats, step: NDArray[np.intp], replica: NDArray[np.intp], steps: int, count: int
    ) -> None:
        sums, squares = np.zeros((steps, count, DIMENSIONS)), np.zeros((steps, count, DIMENSIONS))
        samples = np.zeros((steps, count))
        np.add.at(sums, (step, replica), drawn)
        np.add.at(squares, (step, replica), drawn**2)
        np.add.at(samples, (step, replica), 1)
        n, sums, squares = rolled(samples, STEPS), rolled(sums, STEPS), rolled(squares, STEPS)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = n.sum(axis=1, keepdims=True)
            rest = total - n
            mean, common = sums / n[..., None], sums.sum(axis=1) / total
            within = (squares - sums**2 / n[..., None]).sum(axis=1)
            variance = np.maximum(within / (total - count), 1e-3)[:, None, :]
            self.distance = ((mean - common[:, None, :]) ** 2 / variance).sum(axis=2) * n * total / rest
            middle = np.median(mean, axis=1, keepdims=True)
            self.from_median = ((mean - middle) ** 2 / variance).sum(axis=2) * n * rest / total
        self.decided = (n >= LEAST) & (rest >= LEAST)
        self._chance(drawn, step, replica, steps, count)

    def _chance(self, drawn: Floats, step: NDArray[np.intp], replica: NDArray[np.intp], steps: int, count: int) -> None:
        moments = np.zeros((steps, 3))
        for which in range(count):
            own, when = drawn[replica == which], step[replica == which]
            batches = own[: len(own) // BATCH * BATCH].reshape(-1, BATCH, DIMENSIONS).mean(axis=1)
            apart = ((batches[1:] - batches[:-1]) ** 2 / own.var(axis=0)).sum(axis=1) * BATCH / 2
            ends, kept = when[2 * BATCH - 1 :: BATCH][: len(apart)], apart <= JUMP
            np.add.at(moments, ends[kept], np.stack([np.ones_like(apart), apart, apart**2], axis=1)[kept])
        number, first, second = rolled(moments, MEMORY).T
        self.mean = (first + PRIOR * DIMENSIONS) / (number + PRIOR)
        self.variance = (second + PRIOR * (DIMENSIONS**2 + 4 * DIMENSIONS)) / (number + PRIOR) - self.mean**2

    def threshold(self, tail: float) -> Floats:
        """The distance that chance exceeds with this probability, by step; as a column."""
        z = stats.norm.isf(tail)
        cube = 1 - self.variance / (9 * self.mean**2) + z * np.sqrt(self.variance) / (3 * self.mean)
        return np.asarray(self.mean * cube**3)[:, None]


def held(condition: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether it was so at each evaluation of the hour before that could say, and three in four could."""
    yes, could = rolled(condition & known, STEPS), rolled(known.astype(int), STEPS)
    return np.asarray((yes == could) & (could >= 0.75 * STEPS))


def draw(rng: np.random.Generator, pool: int, hours: int, count: int, rate: float) -> tuple[NDArray[np.intp], ...]:
    """Which pair, at which step, on which replica; in the order of time."""
    numbers = rng.poisson(rate / STEPS, (hours * STEPS, count))
    step, replica = (np.repeat(axis.ravel(), numbers.ravel()) for axis in np.indices(numbers.shape))
    return rng.integers(0, pool, len(step)), step, replica


def null(prompts: Floats, answers: Floats, hours: int, count: int, rate: float, seed: int) -> None:
    """Without a fault."""
    rng, tail = np.random.default_rng(seed), 1 / (720 * count)
    seen = plain = ours = gated = alarms = 0
    remaining = hours
    while remaining > 0:
        part = min(remaining, 250)
        which, step, replica = draw(rng, len(answers), part, count, rate)
        response = Channel(answers[which], step, replica, part * STEPS, count)
        prompt = Channel(prompts[which], step, replica, part * STEPS, count)
        far, alike = response.distance > response.threshold(tail), prompt.distance <= prompt.threshold(0.01)
        hourly = slice(STEPS - 1, None, STEPS)
        seen += int(response.decided[hourly].sum())
        plain += int((response.distance > stats.chi2.isf(tail, DIMENSIONS))[hourly].sum())
        ours += int(far[hourly].sum())
        gated += int((far & alike)[hourly].sum())
        starts = held(far, alike & response.decided)
        alarms += int((starts[1:] & ~starts[:-1]).sum())
        remaining -= part
    print(
        f"{count} replicas, {rate:g} samples an hour each, {hours} hours without a fault, declared {tail:.6f} an hour"
    )
    for name, times in (("chi-squared of 32", plain), ("as in peers.yaml", ours), ("and prompts alike", gated)):
        print(f"  {name:20} {times / seen:.6f} ({times} of {seen})")
    print(f"  held for an hour     {alarms} alarms in {hours / 720:.1f} months of 30 days; declared {hours / 720:.1f}")


def fault(name: str, prompts: Floats, answers: Floats, faulty: Floats, count: int, rate: float, seed: int) -> None:
    """One replica, the first, answers otherwise from hour 24 on: how often it is named, and when.

    Its prompts are drawn as those of the others, from the same records.
    """
    delays, named_others, trials = [], 0, 20
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        which, step, replica = draw(rng, len(answers), 36, count, rate)
        bad = (replica == 0) & (step >= 24 * STEPS)
        drawn = answers[which]
        drawn[bad] = faulty[rng.integers(0, len(faulty), bad.sum())]
        response = Channel(drawn, step, replica, 36 * STEPS, count)
        prompt = Channel(prompts[which], step, replica, 36 * STEPS, count)
        far = response.distance > response.threshold(1 / (720 * count))
        out = far & (response.from_median > response.threshold(1 / (720 * count)))
        alarm = held(out, (prompt.distance <= prompt.threshold(0.01)) & response.decided)
        named_others += int(alarm[:, 1:].any())
        when = np.flatnonzero(alarm[24 * STEPS :, 0])
        delays.append((when[0] + 1) / STEPS if len(when) else np.inf)
    found = np.isfinite(delays).sum()
    print(
        f"  {name:20} one of {count}, {rate:5g} an hour: named in {found} of {trials}, after {np.median(delays):.1f} h "
        f"in the median; others named in {named_others}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--embedder", default="static", choices=["static", "minilm"])
    parser.add_argument("--fault", type=Path, action="append", default=[], help="recorded samples of a faulty model")
    parser.add_argument("--hours", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    records = recorded(options.samples)
    texts = [record["response"] for record in records]
    prompts = features([record["messages"][-1]["content"] for record in records], options.embedder)
    answers = features(texts, options.embedder)
    print(f"{len(texts)} answers, embedder {options.embedder}")
    null(prompts, answers, options.hours, 8, options.rate, options.seed)
    mixed = random.Random(options.seed)
    cut = [" ".join(text.split()[:10]) for text in texts]
    disorder = [" ".join(mixed.sample(text.split(), len(text.split()))) for text in texts]
    faults = {
        "cut to 10 words": features(cut, options.embedder),
        "words in disorder": features(disorder, options.embedder),
        **{path.name.split(".")[0]: features(_answers(path), options.embedder) for path in options.fault},
    }
    for name, faulty in faults.items():
        for count in (3, 8):
            for rate in (options.rate, 10 * options.rate):
                fault(name, prompts, answers, faulty, count, rate, options.seed)


if __name__ == "__main__":
    main()
