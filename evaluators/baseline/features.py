"""Where a sample lies against a baseline: what the detectors see. Arrays from the baseline's file and numpy, no more.

The response's vector is compared with what is expected *of this question*: `e = x - W phi(q, c)`, where phi is how much
the prompt belongs to each cluster of prompts, its vector and the contexts' (after Cobb and Van Looveren, "Context-aware
drift detection", ICML 2022). What remains is whitened. So are a few measures of the response that its vector does not
tell, such as its length; they come first. The prompt's own vector is whitened too: it says whether these are the usual
questions. `learn` makes the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.sample import Sample

Floats = NDArray[np.float32]
CLIP = 5.0
MOST = 128
"""Dimensions that are looked at, at most."""
MEASURES = ("length", "logprob")
"""Logarithm of the response's characters, and the mean log probability of its tokens where that is known."""
_ROUNDING = 1e-5
"""Energy below this is the difference of two sums that are the same: nothing lies outside."""
SCALARS = ("energy", "distance", "prompt_energy", "prompt_distance")
"""Scalar channels: what lies outside the subspace (squared length), and the distance to the nearest centroid."""


class Whitening(NamedTuple):
    """A subspace in which the baseline has mean 0 and variance 1: `mean` (d,), `axes` (d, k), `scale` (k,)."""

    mean: Floats
    axes: Floats
    scale: Floats

    def apply(self, rows: Floats) -> tuple[Floats, Floats]:
        """Coordinates of rows (n, d), clipped, (n, k); and the energy outside the subspace, (n,)."""
        centred = rows - self.mean
        along = centred @ self.axes
        outside = np.einsum("nd,nd->n", centred, centred) - np.einsum("nk,nk->n", along, along)
        return np.clip(along / self.scale, -CLIP, CLIP), np.where(outside > _ROUNDING, outside, 0)


def measures_of(sample: Sample) -> tuple[float, float]:
    """MEASURES of a sample, NaN where one is not known."""
    logprob = sample.mean_logprob
    if logprob is None and sample.logprobs:
        logprob = math.fsum(sample.logprobs) / len(sample.logprobs)
    known = logprob is not None and math.isfinite(logprob)
    return math.log1p(len(sample.response)), float(logprob) if known and logprob is not None else math.nan


class Rows(NamedTuple):
    """Vectors of n samples by part, (n, d) each, zero where a sample has no such part; `has_` says where it does.
    `measures` (n, len(MEASURES)) are NaN where they are not known."""

    response: Floats
    prompt: Floats
    context: Floats
    measures: Floats
    has_prompt: NDArray[np.bool_]
    has_context: NDArray[np.bool_]

    @classmethod
    def of(cls, vectors: Sequence[VectorsOf], measures: Sequence[tuple[float, ...]] | None = None) -> Rows:
        """From the vectors of samples, each with a response, and their measures. Raises ValueError if a vector holds
        NaN or infinity.
        """
        measured = np.full((len(vectors), len(MEASURES)), np.nan) if measures is None else np.array(measures)
        zero = np.zeros_like(vectors[0]["response"])
        parts = {
            name: np.stack([each.get(name, zero) for each in vectors]) for name in ("response", "prompt", "context")
        }
        for name, rows in parts.items():
            if not np.isfinite(rows).all():
                worst = int(np.argmin(np.isfinite(rows).all(axis=1)))
                raise ValueError(f"sample {worst}: the embedding of its {name} holds NaN or infinity")
        return cls(
            **parts,
            measures=measured.astype(np.float32),
            has_prompt=_any(parts["prompt"]),
            has_context=_any(parts["context"]),
        )

    def take(self, which: NDArray[Any]) -> Rows:
        """Those samples."""
        return Rows(*(rows[which] for rows in self))


class Measured(NamedTuple):
    """What measures are usual of a question: `which` of MEASURES (m,), `weights` (conditions, m), `intercept` (m,),
    `scale` (m,)."""

    which: NDArray[np.intp]
    weights: Floats
    intercept: Floats
    scale: Floats

    def apply(self, measures: Floats, phi: Floats) -> Floats:
        """How far beyond the usual, clipped, (n, m); 0 where it is not known."""
        residual = (measures[:, self.which] - phi @ self.weights - self.intercept) / self.scale
        return np.asarray(np.clip(np.nan_to_num(residual, nan=0.0), -CLIP, CLIP), np.float32)


class Projected(NamedTuple):
    """n samples as the detectors see them.

    `response` (n, k), of which the first are measures, and `prompt` (n, l) are whitened and clipped; `prompt` is zero
    where there is no prompt and has no columns if the baseline has no prompt channel. `cluster` is the prompt's; the
    last one is of samples without a prompt, and -1 says that the prompt lies outside what the baseline has seen: of the
    response it cannot say what is normal. `scalars` are NaN where they do not apply.
    """

    response: Floats
    prompt: Floats
    has_prompt: NDArray[np.bool_]
    cluster: NDArray[np.intp]
    scalars: dict[str, Floats]


class Projection(NamedTuple):
    """One sample as the detectors see it; `prompt` is None where there is none to see."""

    response: Floats
    prompt: Floats | None
    cluster: int
    scalars: dict[str, float]


class Features:
    """What a baseline makes of vectors. `clusters` counts the clusters of prompts and that of samples without one."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._weights, self._intercept = arrays["weights"], arrays["intercept"]
        self._centroids, self._temperature = arrays["centroids"], float(arrays["temperature"])
        self._answers = arrays["answers"]
        self._support = float(arrays["support"])
        self._response = whitening(arrays, "response")
        self._prompt = whitening(arrays, "prompt")
        self._measured = Measured(*(arrays[f"measured.{name}"] for name in Measured._fields))
        self.clusters = len(self._centroids) + 1
        self.measures = tuple(MEASURES[at] for at in self._measured.which)
        """Those that the baseline has, the first dimensions of the response."""
        self.dimensions = len(self.measures) + self._response.axes.shape[1]
        self.prompt_dimensions = self._prompt.axes.shape[1]

    def many(self, rows: Rows) -> Projected:
        """n samples at once."""
        asked = rows.has_prompt
        squared = squared_distances(rows.prompt, self._centroids)
        phi = conditions(rows, squared, self._temperature)
        response, energy = self._response.apply(rows.response - phi @ self._weights - self._intercept)
        response = np.concatenate([self._measured.apply(rows.measures, phi), response], axis=1)
        prompt, prompt_energy = self._prompt.apply(rows.prompt)
        prompt[~asked] = 0
        nearest = np.sqrt(squared.min(axis=1)) if self.clusters > 1 else np.zeros(len(asked), np.float32)
        cluster = np.full(len(asked), self.clusters - 1)
        if self.clusters > 1:
            cluster[asked] = np.where(nearest <= self._support, squared.argmin(axis=1), -1)[asked]
        answer = np.sqrt(squared_distances(rows.response, self._answers).min(axis=1))
        without = np.float32(np.nan)
        return Projected(
            response,
            prompt,
            asked & (self.prompt_dimensions > 0),
            cluster,
            {
                "energy": energy,
                "distance": answer,
                "prompt_energy": np.where(asked, prompt_energy, without),
                "prompt_distance": np.where(asked, nearest, without),
            },
        )

    def one(
        self,
        prompt: Floats | None,
        context: Floats | None,
        response: Floats,
        measures: tuple[float, ...] = (math.nan,) * len(MEASURES),
    ) -> Projection:
        """One sample. Raises ValueError if a vector holds NaN or infinity."""
        parts = {"response": response, "prompt": prompt, "context": context}
        seen = self.many(Rows.of([{name: each for name, each in parts.items() if each is not None}], [measures]))
        return Projection(
            seen.response[0],
            seen.prompt[0] if seen.has_prompt[0] else None,
            int(seen.cluster[0]),
            {name: float(values[0]) for name, values in seen.scalars.items() if np.isfinite(values[0])},
        )


def _any(rows: Floats) -> NDArray[np.bool_]:
    """Which rows are not zero, (n,)."""
    return np.asarray((rows != 0).any(axis=1))


def whitening(arrays: Mapping[str, NDArray[Any]], channel: str) -> Whitening:
    """The whitening of a channel, `response` or `prompt`."""
    return Whitening(*(arrays[f"{channel}.{name}"] for name in Whitening._fields))


def conditions(rows: Rows, squared: Floats, temperature: float) -> Floats:
    """phi (n, clusters + 2 d + 2): membership, the prompt, the contexts, and whether there are such.

    `squared` are the prompts' squared distances to the centroids; `temperature` is the distance within which a prompt
    belongs to several.
    """
    if squared.shape[1]:
        nearness = np.exp((squared.min(axis=1, keepdims=True) - squared) / temperature)
        membership = nearness / nearness.sum(axis=1, keepdims=True) * rows.has_prompt[:, None]
    else:
        membership = squared
    flags = np.stack([rows.has_prompt, rows.has_context], axis=1)
    return np.concatenate([membership, rows.prompt, rows.context, flags], axis=1, dtype=np.float32)


def squared_distances(rows: Floats, centroids: Floats) -> Floats:
    """From each row (n, d) to each centroid (k, d): (n, k)."""
    lengths = np.einsum("nd,nd->n", rows, rows)[:, None] + np.einsum("kd,kd->k", centroids, centroids)
    return np.asarray(np.maximum(lengths - 2 * rows @ centroids.T, 0), np.float32)
