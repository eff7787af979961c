"""A baseline from prepared samples: split, learn, calibrate, count. Needs scikit-learn; the evaluator does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline import remarks
from palegreen.evaluators.baseline.counting import Limits, Quantiles, count
from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.features import SCALARS, Features, Projected
from palegreen.evaluators.baseline.learn import Arrays, learn
from palegreen.evaluators.baseline.manifest import FORMAT, Manifest, Pinned
from palegreen.evaluators.baseline.prepare import Prepared
from palegreen.evaluators.baseline.progress import Bar
from palegreen.evaluators.baseline.runlength import RunLength
from palegreen.evaluators.baseline.segments import Named
from palegreen.evaluators.baseline.split import Thirds, thirds
from palegreen.evaluators.checks.registry import Checks
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.detectors.mewma import BLOCKS
from palegreen.evaluators.embed.embedder import Embedder

_TOLD = ("threshold", "run_length", "rates", "blocks", "curve", "horizon", "streams", "how")
PROBABILITIES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)


class Calibration(Protocol):
    """What the calibration of a channel gives, see `detectors.mewma`."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the detector is made of again; `threshold`, `curve`, `horizon`, `streams` and `how` among it."""
        ...


class Calibrate(Protocol):
    """The detector's calibration, see `detectors.calibrate`."""

    def __call__(
        self,
        vectors: NDArray[Any],
        n_whitening: int,
        run_length: float,
        *,
        seed: int,
        clusters: NDArray[np.intp],
        blocks: Sequence[slice],
        progress: Callable[[float], None],
    ) -> Calibration:
        """Of vectors (n, dimensions) in the order of time."""
        ...


class Detectors(NamedTuple):
    """What is asked of the detectors."""

    calibrate: Calibrate
    limits: Limits


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a baseline is before it is written."""

    manifest: Manifest
    arrays: Arrays


def fit(
    prepared: Prepared,
    embedder: Embedder,
    checks: Checks,
    detectors: Detectors,
    run_length: RunLength,
    *,
    segments: Sequence[Named] = (),
    seed: int,
    created: float,
    bar: Bar,
) -> Fitted:
    """Fit a baseline. `segments` are the parts of the traffic that are to be watched by themselves too.

    Raises:
        BaselineError: the responses do not differ, or the calibration refuses them.
    """
    samples, rows = prepared.samples, prepared.rows
    timed = all(sample.time for sample in samples)
    times = [sample.time if timed else 0.0 for sample in samples]
    parts = thirds(times, [sample.session for sample in samples], seed)
    with bar("fitting", 1) as done:
        arrays = learn(rows, parts, seed)
        features = Features(arrays)
        projected = features.many(rows)
        done(1)
    quantiles = _quantiles(prepared, projected, parts)
    with bar("checking", len(samples) - len(parts.regression)) as done:
        counted = count(
            prepared, projected, features.clusters, parts, checks, quantiles, segments, detectors.limits, done
        )
    about = {}
    for channel in ("response", "prompt"):
        share = run_length.shares[channel]
        found = _calibrated(channel, features, projected, parts, detectors.calibrate, share, seed, bar)
        if found is not None:
            kept = found.arrays()
            about[channel] = {name: kept[name].tolist() for name in _TOLD}
            arrays |= {f"calibration.{channel}.{name}": array for name, array in kept.items()}
    manifest = Manifest(
        format=FORMAT,
        embedder=Pinned(name=embedder.name, digest=embedder.digest, dimensions=embedder.dimensions),
        evaluator_version=version("palegreen"),
        samples=len(samples),
        split={name: len(getattr(parts, name)) for name in ("regression", "whitening", "calibration")}
        | {"blocks": int(parts.block.max()) + 1},
        left_out=prepared.left_out,
        since=min(times) if timed else None,
        until=max(times) if timed else None,
        models=dict(Counter(sample.model for sample in samples)),
        languages=counted.languages,
        seed=seed,
        created=created,
        run_length=run_length,
        geometry={
            "clusters": features.clusters,
            "dimensions": features.dimensions,
            "prompt_dimensions": features.prompt_dimensions,
            "penalty": float(arrays["penalty"]),
            "explained": float(arrays["explained"]),
        },
        calibration=about,
        quantiles=quantiles,
        checks=counted.checks,
        usual=counted.usual,
        normal=counted.normal,
        segments=counted.segments,
        remarks=remarks.on(prepared, counted, features, projected, parts),
    )
    return Fitted(manifest, arrays)


def _calibrated(
    channel: str,
    features: Features,
    projected: Projected,
    parts: Thirds,
    calibrate: Calibrate,
    run_length: float,
    seed: int,
    bar: Bar,
) -> Calibration | None:
    """A channel's calibration on its third, in the order of time; None if the baseline has no such channel."""
    vectors = getattr(projected, channel)
    if not vectors.shape[1]:
        return None
    # The prompts' own detector asks whether the mix of questions is the usual one: to it they are all of one cluster.
    cluster = projected.cluster if channel == "response" else np.where(projected.has_prompt, 0, -1)
    whitening, calibration = (third[cluster[third] >= 0] for third in (parts.whitening, parts.calibration))
    with bar(f"calibrating ({channel})", 100) as done:
        told = 0

        def progress(share: float) -> None:
            nonlocal told
            done(int(100 * share) - told)
            told = int(100 * share)

        try:
            found = calibrate(
                vectors[calibration],
                len(whitening),
                run_length,
                seed=seed,
                clusters=cluster[calibration],
                blocks=_blocks(len(features.measures) if channel == "response" else 0),
                progress=progress,
            )
        except ValueError as refused:
            raise BaselineError(f"the {channel} channel cannot be calibrated: {refused}") from None
        progress(1.0)
        return found


def _blocks(measures: int) -> list[slice]:
    """The detector's blocks behind one of the measures, which would be lost among a hundred dimensions."""
    moved = [slice(block.start + measures, block.stop + measures) for block in BLOCKS]
    return [slice(0, measures), *moved] if measures else moved


def _quantiles(prepared: Prepared, projected: Projected, parts: Thirds) -> Quantiles:
    """Of `words` from the regression third, so that the check `length` is counted on others; of the scalar channels
    from the calibration third, on which nothing of them was fitted.
    """
    words = np.array([View(prepared.samples[at]).word_count for at in parts.regression], np.float64)
    found = {"words": _quantiles_of(words)}
    for name in SCALARS:
        values = projected.scalars[name][parts.calibration]
        values = values[np.isfinite(values)]
        if len(values):
            found[name] = _quantiles_of(values)
    return found


def _quantiles_of(values: NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, PROBABILITIES)
    return {f"{probability:g}": float(value) for probability, value in zip(PROBABILITIES, found, strict=True)}
