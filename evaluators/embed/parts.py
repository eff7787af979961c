"""What of a sample is embedded: the response, the prompt, and the contexts as their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.embed.embedder import Embedder, Vectors
from palegreen.evaluators.sample import Message, Sample

CONTEXTS = 4
"""Passages of a sample that are embedded."""
VectorsOf = dict[str, NDArray[np.float32]]
"""Unit vectors by part: `response`, `prompt`, `context`; only the parts that have text."""


def vectors_of(embedder: Embedder, samples: Sequence[Sample]) -> list[VectorsOf]:
    """The vectors of each sample, in order; one call of the embedder for all of them."""
    texts: list[str] = []
    places: list[dict[str, slice]] = []
    for sample in samples:
        place = {}
        contexts = sample.contexts[:CONTEXTS]
        for part, said in (("response", [sample.response]), ("prompt", [sample.prompt]), ("context", contexts)):
            said = [text for text in said if text.strip()]
            if said:
                place[part] = slice(len(texts), len(texts) + len(said))
                texts += said
        places.append(place)
    rows = embedder.embed(texts)
    return [{part: _mean(rows[where]) for part, where in place.items()} for place in places]


def embedded_parts(sample: Sample) -> Sample:
    """A sample of nothing but what is embedded of it, for a worker elsewhere."""
    asked = Message(role="user", content=sample.prompt)
    return Sample(sample.response, messages=[asked], contexts=sample.contexts[:CONTEXTS])


def _mean(rows: Vectors) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = rows[0] if len(rows) == 1 else rows.mean(axis=0)
    length = np.float32(np.linalg.norm(mean))
    return mean / length if length > 0 else mean
