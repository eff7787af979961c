"""Recorded samples of a made-up model, an embedder that places them, and detectors that calibrate nothing."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.engine import Local
from palegreen.evaluators.baseline.fit import Detectors, Fitted, fit
from palegreen.evaluators.baseline.prepare import embed, gather
from palegreen.evaluators.baseline.progress import silent
from palegreen.evaluators.baseline.runlength import declare
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.config import RedactionConfig
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Sample

START = 1_700_000_000.0
TOPICS = {
    "weather": "rain sun wind cloud forecast",
    "cooking": "soup bread salt oven butter",
    "code": "python loop function list error",
    "travel": "train ticket hotel river airport",
}
_FILLING = "the a of with about small large good bad then and also first next people usually need want find make"


def recorded(n: int, seed: int = 0, words: tuple[int, int] = (15, 40), **fields: Any) -> list[Sample]:
    """Samples ten seconds apart, three a session; the answer is about what the question is about."""
    draw = random.Random(seed)
    samples = []
    for number in range(n):
        topic = draw.choice(list(TOPICS))
        about = TOPICS[topic].split()
        one, other = draw.sample(about, 2)
        length = draw.randint(*words)
        body = " ".join(draw.choice(about if draw.random() < 0.3 else _FILLING.split()) for _ in range(length))
        given: dict[str, Any] = {
            "id": f"r{number}",
            "time": START + 10 * number,
            "model": "llama",
            "session": f"s{number // 3}",
            "messages": [{"role": "user", "content": f"Please explain {one} and {other} for {topic}."}],
            "response": f"About {one}, number {number}: {body}.",
            "finish_reason": "stop",
        }
        samples.append(Sample(**{**given, **fields}))
    return samples


class Embedder:
    """Texts to vectors of 24 dimensions: where the topic lies, and chance that hangs on the text."""

    name = "fake"
    digest = "fa" * 32
    dimensions = 24

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(rows, texts, strict=True):
            found = re.search("|".join(TOPICS), text) or re.search("|".join(" ".join(TOPICS.values()).split()), text)
            place = next((at for at, item in enumerate(TOPICS.items()) if found and found[0] in " ".join(item)), 9)
            row += np.random.default_rng(place).normal(size=self.dimensions)
            row += 0.6 * np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimensions)
            row /= np.linalg.norm(row)
        return rows


class Calibrated:
    """What a calibration gives, with a threshold of its own."""

    def __init__(self, vectors: NDArray[Any], n_whitening: int, run_length: float) -> None:
        self.seen = vectors.shape, n_whitening, run_length

    def arrays(self) -> dict[str, NDArray[Any]]:
        plain = {"threshold": 4.0, "run_length": self.seen[2], "rates": [0.125], "blocks": [[0, 4]], "horizon": 1}
        return {
            name: np.array(value) for name, value in (plain | {"streams": 1, "curve": [[1.0]] * 3, "how": "no"}).items()
        }


def calibrated(
    vectors: NDArray[Any],
    n_whitening: int,
    run_length: float,
    *,
    seed: int,
    clusters: NDArray[np.intp],
    blocks: Sequence[slice],
    progress: Callable[[float], None],
) -> Calibrated:
    """Stands in for the bootstrap, which takes seconds; that one has tests of its own."""
    assert len(clusters) == len(vectors)
    assert (clusters >= 0).all()
    progress(1.0)
    return Calibrated(vectors, n_whitening, run_length)


def limited(values: NDArray[Any], clusters: NDArray[np.intp], count: int, *, checks: int) -> list[float]:
    """Stands in for the bounds."""
    return [0.5] * count


def fitted(samples: Sequence[Sample], every: str = "20000", seed: int = 0, embedder: Any = None) -> Fitted:
    """A baseline of these samples."""
    embedder = embedder or Embedder()
    redactor = Redactor(RedactionConfig())
    gathered = gather(map(redactor.sample, samples), silent)
    run_length = declare(every, gathered.samples, None)
    prepared = embed(gathered, Local(embedder, redactor), silent)
    detectors = Detectors(calibrated, limited)
    return fit(prepared, embedder, build({}), detectors, run_length, seed=seed, created=START, bar=silent)
