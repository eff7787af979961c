"""What a person should know of a replay before believing what it says, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from palegreen.evaluators.baseline.manifest import Manifest
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.sample import Sample

_SCANT = 0.1
"""Share of the samples, below which no alarm is no sign of health."""
_MOSTLY, _SELDOM = 0.5, 0.1
"""Shares of samples of which a check says something: in a baseline that lets it be expected, and where it is missed."""


def scant(watched: int, total: int) -> bool:
    """Whether so few samples were compared that the others are what to look at."""
    return watched < _SCANT * total


def on(recorded: Sequence[Sample], model: Model, watched: int, told: Mapping[str, int], fair: int) -> list[str]:
    """Remarks, one line each; the gravest first.

    `watched` samples were compared; of `fair` ones, which are part of statistics, each check of `told` said something
    of so many.
    """
    total, found = len(recorded), list[str]()
    if scant(watched, total):
        count = f"only {watched}" if watched else "none"
        found.append(f"{count} of {total} samples were compared with the baseline: no alarm says little of the others")
    if missed := [check for check in _expected(model) if told.get(check, 0) < _SELDOM * fair]:
        named = ", ".join(f"{check} ({told.get(check, 0)} of {fair})" for check in missed)
        found.append(f"checks that could not be judged: {named}; the samples lack what the baseline's mostly have")
    times = [sample.time for sample in recorded]
    late = int((np.maximum.accumulate(times) > np.array(times)).sum())
    untimed = times.count(0.0)
    if untimed:
        found.append(f"{untimed} of {total} samples have no time")
    elif late:
        found.append(f"{late} of {total} samples are out of the order of time; they were replayed as they stand")
    models = set(model.manifest.models)
    if others := models and sorted({sample.model for sample in recorded} - models):
        named = ", ".join(name or "none named" for name in others[:4])
        found.append(f"samples of models that the baseline is not of: {named}")
    if unasked := sum(not sample.prompt.strip() for sample in recorded):
        judged = "their responses are judged without the question"
        effect = judged if model.unasked else "the baseline has none such, so they were not compared"
        found.append(f"{unasked} of {total} samples have no prompt: {effect}")
    return found


def _expected(model: Model) -> list[str]:
    """Checks with a limit that say something of most of the baseline's samples."""
    return [check for check in model.rows.checks if _share(model.manifest, check) >= _MOSTLY]


def _share(of: Manifest, check: str) -> float:
    counted = of.checks.get(check)
    among = of.split.get("whitening", 0) + of.split.get("calibration", 0)
    if counted is None or not among:
        return 0.0
    return max(sum(counted.judged), sum(counted.scored)) / among
