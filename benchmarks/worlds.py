"""Synthetic embeddings of prompts and responses, of which it is known when something goes wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DIMENSIONS, TOPICS = 384, 10
Floats = NDArray[np.float32]


class Shift(NamedTuple):
    """What goes wrong: the mean moves, a share of responses is of another kind, or they spread more."""

    mean: float = 0.0
    mixture: float = 0.0
    scale: float = 0.0


NOTHING = Shift()
SHIFTS = {
    "mean .06": Shift(mean=0.06),
    "mean .12": Shift(mean=0.12),
    "mixture 10%": Shift(mixture=0.1),
    "mixture 25%": Shift(mixture=0.25),
    "scale .3": Shift(scale=0.3),
    "scale .8": Shift(scale=0.8),
}


class World:
    """Prompts of ten topics, and responses whose mean and spread depend on the prompt and its topic."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        mix = np.maximum(draw.dirichlet(np.full(TOPICS, 4.0)), 0.02)
        self.own = mix / mix.sum()
        self.other = draw.dirichlet(np.ones(TOPICS))
        """Another mix of the same topics."""
        self._asked, self._answered = _unit(draw.normal(size=(2 * TOPICS, DIMENSIONS))).reshape(2, TOPICS, -1)
        self._prompt_noise, self._noise = (_turned(draw) * _falling() for _ in range(2))
        self._map = _turned(draw) * 0.5
        self._common, self._direction, self._kind = _unit(draw.normal(size=(3, DIMENSIONS)))
        self._spread = np.exp(draw.uniform(np.log(0.5), np.log(1.1), size=TOPICS))
        self._phase = draw.permutation(TOPICS) * 2 * np.pi / TOPICS

    def by_day(self, at: int, period: int = 1_000) -> NDArray[Any]:
        """The mix at a time of a day of so many samples."""
        weights = self.own * np.exp(1.5 * np.cos(2 * np.pi * at / period + self._phase))
        return np.asarray(weights / weights.sum())

    def topics(self, draw: np.random.Generator, count: int) -> NDArray[np.intp]:
        """Of samples in the usual mix."""
        return draw.choice(TOPICS, size=count, p=self.own)

    def draw(
        self, draw: np.random.Generator, topics: NDArray[np.intp], shift: Shift = NOTHING
    ) -> tuple[Floats, Floats]:
        """Unit vectors of a prompt and a response of each topic."""
        shape = len(topics), DIMENSIONS
        prompts = _unit(self._asked[topics] + 0.6 * (draw.normal(size=shape) @ self._prompt_noise.T))
        spread = self._spread[topics, None] * (1 + shift.scale)
        means = prompts @ self._map + 0.5 * (self._common + self._answered[topics])
        means = np.where(draw.random((len(topics), 1)) < shift.mixture, self._kind, means)
        means = means + shift.mean * self._direction
        return prompts, _unit(means + spread * (draw.normal(size=shape) @ self._noise.T))


def _unit(rows: NDArray[Any]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _turned(draw: np.random.Generator) -> NDArray[Any]:
    return np.asarray(np.linalg.qr(draw.normal(size=(DIMENSIONS, DIMENSIONS)))[0])


def _falling() -> NDArray[Any]:
    """Standard deviations of components, falling as those of embeddings do; squares add up to 1."""
    variances = 1 / np.arange(1, DIMENSIONS + 1)
    return np.sqrt(variances / variances.sum())
