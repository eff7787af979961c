"""A fleet of replicas that count projected samples, and the same comparison in numpy, from the samples themselves."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.replicas.counts import CHANNELS, Projections
from palegreen.evaluators.replicas.projection import DIMENSIONS, Projection
from palegreen.runtime.exposition import Collected, Readings
from support.rules import Recording

Floats = NDArray[np.float64]


def identity() -> Projection:
    """A projection whose features are the first 32 numbers of a vector."""
    content = io.BytesIO()
    parts: dict[str, Any] = {"mean": np.zeros(40), "axes": np.eye(DIMENSIONS, 40), "scales": np.ones(DIMENSIONS)}
    np.savez(content, embedder=np.array("none"), **parts)
    return Projection(content.getvalue())


@dataclass
class Replica:
    """One replica: its answers lie `shift` away from scrape `since` on, its prompts `prompt_shift`.

    `fails` is the share of checks that fail, `rate` the samples between two scrapes; before the scrapes `restarts` it
    begins anew.
    """

    model: str
    name: str
    shift: Floats = field(default_factory=lambda: np.zeros(DIMENSIONS))
    prompt_shift: Floats = field(default_factory=lambda: np.zeros(DIMENSIONS))
    since: int = 0
    rate: float = 6.0
    fails: float = 0.02
    revision: str = ""
    restarts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        pod = f"{self.model}-{self.name}"
        self.labels = (self.model, "e", f"ns/{pod}", "ns", pod)
        self.seen: dict[str, list[list[Floats]]] = {channel: [] for channel in CHANNELS}
        self.start()

    def start(self) -> None:
        self._counts = Projections(identity(), self.labels)
        self._checks = {"pass": 0, "fail": 0}

    def serve(self, at: int, rng: np.random.Generator) -> None:
        """What comes before scrape `at`."""
        for channel in CHANNELS:
            self.seen[channel].append([])
        for _ in range(rng.poisson(self.rate)):
            prompt = rng.standard_normal(DIMENSIONS) + self.prompt_shift
            answer = 0.6 * prompt + 0.8 * rng.standard_normal(DIMENSIONS)
            features = {"prompt": prompt, "response": answer + self.shift if at >= self.since else answer}
            self._counts.add(self.labels, {c: np.pad(v, (0, 8)).astype(np.float32) for c, v in features.items()})
            for channel, vector in features.items():
                self.seen[channel][-1].append(np.clip(vector, -5, 5))
            self._checks["fail" if rng.random() < self.fails else "pass"] += 1

    def page(self) -> Readings:
        now = Collected()
        self._counts.show(now)
        for result, times in self._checks.items():
            now.add("palegreen_quality_checks_total", times, *self.labels, "empty", result)
        if self.revision:
            now.add("palegreen_replica_revision_info", 1, *self.labels, self.revision)
        return now.readings()

    def within(self, channel: str, begin: int, end: int) -> Floats:
        """Features of the samples that came after scrape `begin` and up to scrape `end`."""
        return np.array([each for scrape in self.seen[channel][begin + 1 : end + 1] for each in scrape])


def recorded(replicas: list[Replica], scrapes: int, seed: int = 0) -> Recording:
    """The fleet's series after that many scrapes."""
    rng, recording = np.random.default_rng(seed), Recording()
    for at in range(scrapes):
        for replica in replicas:
            if at in replica.restarts:
                replica.start()
            replica.serve(at, rng)
        recording.scrape([replica.page() for replica in replicas])
    return recording


def distances(samples: list[Floats]) -> list[float]:
    """T2 of each replica against the rest, of the samples themselves: shape (n, 32) each."""
    spread = sum(((each - each.mean(axis=0)) ** 2).sum(axis=0) for each in samples)
    variance = spread / (sum(map(len, samples)) - len(samples))
    found = []
    for at, own in enumerate(samples):
        rest = np.concatenate(samples[:at] + samples[at + 1 :])
        apart = own.mean(axis=0) - rest.mean(axis=0)
        found.append(float((apart**2 / (variance * (1 / len(own) + 1 / len(rest)))).sum()))
    return found
