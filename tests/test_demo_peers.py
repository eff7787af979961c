"""Replicas of the demo beside each other: the one that differs is named, and nobody else ever is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palegreen.demo.live import Samples
from palegreen.demo.peers import LEAST, Peers

DIMENSIONS = 32
SHIFT = 5.0


class Replica:
    """What a replica's counters say after some answers."""

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self._rows: dict[str, list[NDArray[np.float64]]] = {"response": [], "prompt": []}

    def answer(self, times: int, response: float = 0.0, prompt: float = 0.0) -> None:
        for _ in range(times):
            self._rows["response"].append(self._draw.normal(response, size=DIMENSIONS))
            self._rows["prompt"].append(self._draw.normal(prompt, size=DIMENSIONS))

    def restart(self) -> None:
        self._rows = {"response": [], "prompt": []}

    def samples(self) -> Samples:
        found: Samples = {}
        for channel, rows in self._rows.items():
            features = np.array(rows).reshape(-1, DIMENSIONS)
            found.setdefault("palegreen_drift_samples_total", []).append(({"channel": channel}, float(len(rows))))
            sums = {"sum": (features + SHIFT).sum(axis=0), "square_sum": (features**2).sum(axis=0)}
            for name, values in sums.items():
                series = found.setdefault(f"palegreen_drift_projection_{name}_total", [])
                series += [({"channel": channel, "dim": str(dim)}, value) for dim, value in enumerate(values.tolist())]
        return found


def looks(peers: Peers, replicas: list[Replica], times: int, **bad: float) -> list[str]:
    said = []
    for _ in range(times):
        for replica in replicas[:-1]:
            replica.answer(5)
        replicas[-1].answer(5, **bad)
        said.append(peers.look([replica.samples() for replica in replicas]))
    return [line for line in said if line]


def test_the_replica_whose_answers_differ_is_named_once_and_its_recovery_too() -> None:
    peers, replicas = Peers(), [Replica(seed) for seed in range(3)]
    assert looks(peers, replicas, 10) == []
    (line,) = looks(peers, replicas, 20, response=1.0)
    assert line.startswith("peers    replica 3 differs from the others")
    assert looks(peers, replicas, 60) == ["peers    the replicas are alike again"]


def test_nobody_is_named_while_all_are_well_nor_after_a_restart_nor_for_other_questions() -> None:
    peers, replicas = Peers(), [Replica(seed) for seed in range(3, 6)]
    assert looks(peers, replicas, 40) == []
    for _ in range(3):
        replicas[0].restart()
        assert looks(peers, replicas, 50) == []
    assert looks(peers, replicas, 20, response=1.0, prompt=1.0) == []


def test_too_few_answers_tell_nothing() -> None:
    peers, replicas = Peers(), [Replica(seed) for seed in range(6, 9)]
    peers.look([replica.samples() for replica in replicas])
    for replica in replicas:
        replica.answer(LEAST - 1, response=9.0 if replica is replicas[0] else 0.0)
    assert peers.look([replica.samples() for replica in replicas]) == ""
