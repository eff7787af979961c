"""What differs between two baselines, in words and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.manifest import Counts, Manifest

_SURE = 3.0
"""Standard errors from which figures are said to differ; they are those of independent samples."""
_EXPLAINED = 0.1
"""Difference of explained shares that is worth a line."""
Arrays = Mapping[str, NDArray[Any]]


def compare(one: Manifest, other: Manifest, arrays: tuple[Arrays, Arrays]) -> list[str]:
    """Lines, each something that differs and by how much; none if nothing does."""
    lines = list(_made(one, other))
    if one.embedder != other.embedder:
        lines.append("their vectors cannot be compared: they are of different embedders")
    else:
        lines += _moved((one, other), *arrays)
    lines += _channels(one, other)
    for check in sorted(one.checks.keys() | other.checks.keys()):
        lines += _check(check, one.checks.get(check), other.checks.get(check))
    return lines


def _made(one: Manifest, other: Manifest) -> Iterator[str]:
    facts: dict[str, Callable[[Manifest], str]] = {
        "embedder": lambda of: f"{of.embedder.name} ({of.embedder.digest[:12]})" if of.embedder else "none",
        "evaluator version": lambda of: of.evaluator_version or "unknown",
        "models": lambda of: ", ".join(sorted(name or "none named" for name in of.models)),
        "samples": lambda of: str(of.samples),
        "seed": lambda of: str(of.seed),
        "run length declared": _declared,
        "clusters of prompts": lambda of: f"{of.geometry.get('clusters', 0):.0f}",
        "dimensions": lambda of: f"{of.geometry.get('dimensions', 0):.0f}",
    }
    for name, fact in facts.items():
        before, after = fact(one), fact(other)
        if before != after:
            yield f"{name}: {before} -> {after}"
    share, then = (of.geometry.get("explained", 0.0) for of in (one, other))
    if abs(share - then) > _EXPLAINED:
        yield f"variance of the responses that the question explains: {share:.0%} -> {then:.0%}"


def _declared(of: Manifest) -> str:
    return f"{of.run_length.declared} ({of.run_length.samples:.0f} samples)" if of.run_length else "none"


def _moved(manifests: tuple[Manifest, Manifest], one: Arrays, other: Arrays) -> Iterator[str]:
    """How far what is usual moved, by the yardstick of how far single samples lie from it."""
    chance = sqrt(sum(1 / manifest.samples for manifest in manifests))
    for name in ("response", "prompt"):
        spread = sqrt((float(one[f"spread.{name}"]) + float(other[f"spread.{name}"])) / 2)
        moved = float(np.linalg.norm(one[f"usual.{name}"] - other[f"usual.{name}"])) / max(spread, 1e-9)
        if moved > _SURE * chance:
            yield f"{name}s: their mean vector moved by {moved:.2f} of their spread ({chance:.2f} is chance)"


def _channels(one: Manifest, other: Manifest) -> Iterator[str]:
    for channel in sorted(one.quantiles.keys() & other.quantiles.keys()):
        third = "regression" if channel == "words" else "calibration"
        medians, variance = [], 0.0
        for manifest in (one, other):
            at = manifest.quantiles[channel]
            # Of a median, if it were normal: pi/2 times that of a mean.
            variance += 1.57 * ((at["0.75"] - at["0.25"]) / 1.35) ** 2 / manifest.split[third]
            medians.append(at)
        if abs(medians[0]["0.5"] - medians[1]["0.5"]) > _SURE * sqrt(variance):
            before, after = (f"{at['0.5']:.3g} (nine tenths {at['0.05']:.3g} to {at['0.95']:.3g})" for at in medians)
            yield f"{channel}: median {before} -> {after}"


def _check(name: str, one: Counts | None, other: Counts | None) -> Iterator[str]:
    if one is None or other is None:
        yield f"check {name}: only in the {'second' if one is None else 'first'}"
        return
    (failed, judged), (then_failed, then_judged) = ((sum(each.failures), sum(each.judged)) for each in (one, other))
    if judged and then_judged:
        pooled = (failed + then_failed) / (judged + then_judged)
        error = sqrt(pooled * (1 - pooled) * (1 / judged + 1 / then_judged))
        before, after = failed / judged, then_failed / then_judged
        if abs(before - after) > _SURE * error:
            yield f"check {name}: fails {before:.2%} of {judged} -> {after:.2%} of {then_judged}"
    (mean, variance), (then_mean, then_variance) = _mean(one), _mean(other)
    if abs(mean - then_mean) > _SURE * sqrt(variance + then_variance):
        yield f"check {name}: mean score {mean:.3f} -> {then_mean:.3f}"


def _mean(counts: Counts) -> tuple[float, float]:
    """Of the scores, and its variance; 0 and infinite without any."""
    n = sum(counts.scored)
    if not n:
        return 0.0, inf
    clusters = list(zip(counts.scored, counts.score_mean, counts.score_variance, strict=True))
    mean = sum(times * each for times, each, _ in clusters) / n
    return mean, sum(times * (variance + (each - mean) ** 2) for times, each, variance in clusters) / n**2
