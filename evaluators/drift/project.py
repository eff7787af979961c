"""From the vectors of a batch of samples to what the detectors take of each: done for all at once, it costs a tenth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.features import CLIP, Floats, Rows, measures_of
from palegreen.evaluators.baseline.scalars import WATCHED
from palegreen.evaluators.drift.alarm import Channel
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.ring import packed
from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.sample import Sample


class Row(NamedTuple):
    """One sample: its prompt's cluster, -1 if it lies outside the baseline's; whitened vectors, None where there is
    nothing to see; the same for the ring; scalar channels."""

    cluster: int
    response: Floats | None
    prompt: Floats | None
    packed: Mapping[str, NDArray[np.uint8] | None]
    scalars: Mapping[str, float]


NOWHERE = Row(0, None, None, {}, {})
"""A sample without vectors."""


def sound(vectors: VectorsOf) -> bool:
    """Whether there is a response's vector, and all of them are finite."""
    return "response" in vectors and all(math.isfinite(vector.dot(vector)) for vector in vectors.values())


def projected(model: Model, samples: Sequence[Sample], vectors: Sequence[VectorsOf]) -> Iterator[Row]:
    """Each sample, in order; all are `sound`."""
    if not vectors:
        return
    seen = model.features.many(Rows.of(vectors, [measures_of(sample) for sample in samples]))
    # Of a cluster of which the calibration had no samples, as those without a prompt, nothing is known either.
    clusters = np.where(seen.cluster < model.known, seen.cluster, -1)
    scalars = {channel: seen.scalars[channel].tolist() for channel in WATCHED}
    responses = _packed(model, "response", seen.response, np.maximum(clusters, 0))
    prompts = _packed(model, "prompt", seen.prompt, np.zeros(len(vectors), np.intp))
    for at, (cluster, asked) in enumerate(zip(clusters.tolist(), seen.has_prompt.tolist(), strict=True)):
        usual = cluster >= 0
        yield Row(
            cluster,
            seen.response[at] if usual else None,
            seen.prompt[at] if asked else None,
            {
                "response": responses[at] if usual and responses is not None else None,
                "prompt": prompts[at] if asked and prompts is not None else None,
            },
            {channel: values[at] for channel, values in scalars.items()},
        )


def _packed(model: Model, channel: Channel, whitened: Floats, clusters: NDArray[np.intp]) -> NDArray[np.uint8] | None:
    if channel not in model.calibrations:
        return None
    return packed(np.clip(model.vectors(channel, whitened, clusters), -CLIP, CLIP))
