"""Answers at a temperature: no single one can be wrong, so together they are bets against "as near as when recorded".

The loss of an answer is one minus its nearness to the recorded answers to the same question. Questions are drawn by
lot, so that the expected loss of the next is the mean over all of them whatever came before, and the e-detector's
promise holds: a false alarm is at least as seldom as declared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palegreen.evaluators.detectors.bounds import DELTA, limits
from palegreen.evaluators.detectors.edetector import REST, EDetector
from palegreen.evaluators.probes.compare import Embed, cosine, edit
from palegreen.evaluators.probes.reference import Case

LEAST = 2
"""Sampled answers of a case without which none can be compared with the others."""


class Sampled:
    """Judges answers at the reference's temperature. `run_length`: answers to a false alarm, on average at least."""

    def __init__(self, cases: Sequence[Case], run_length: float, embed: Embed) -> None:
        self._texts = {
            case.prompt.name: [answer.text for answer in case.sampled] for case in cases if len(case.sampled) >= LEAST
        }
        self._run_length = max(run_length, 2 * REST)
        self._embed = embed
        self._detector: EDetector | None = None

    @property
    def names(self) -> list[str]:
        """The questions that can be drawn."""
        return list(self._texts)

    def take(self, name: str, text: str) -> tuple[float, float]:
        """An answer's loss, and the `ratio` of evidence after it: above 1 is an alarm."""
        if self._detector is None:
            self._detector = self._fitted()
        loss = self._loss(text, self._texts[name])
        return loss, self._detector.update(loss)

    def _fitted(self) -> EDetector:
        """Limited by what the recorded answers lose against each other, each against all but itself."""
        losses = [
            self._loss(text, [*texts[:at], *texts[at + 1 :]])
            for texts in self._texts.values()
            for at, text in enumerate(texts)
        ]
        one = np.zeros(len(losses), np.intp)
        return EDetector(limits(np.array(losses), one, 1, checks=1, delta=DELTA), self._run_length)

    def _loss(self, text: str, recorded: Sequence[str]) -> float:
        """Against the nearest of the recorded answers."""
        if text in recorded:
            return 0.0
        near = [cosine(self._embed, text, each) for each in recorded]
        nearest = max(edit(text, each) if known is None else known for each, known in zip(recorded, near, strict=True))
        return float(np.clip(1 - nearest, 0, 1))
