"""What a person should know of a baseline before trusting it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from palegreen.evaluators.baseline.counting import Counted
from palegreen.evaluators.baseline.features import Features, Projected, measures_of
from palegreen.evaluators.baseline.prepare import REPEATED, Prepared
from palegreen.evaluators.baseline.segments import LEAST
from palegreen.evaluators.baseline.split import Thirds
from palegreen.evaluators.sample import Sample

_MIXED = 0.05
"""Share from which a second language is one of the baseline's."""

_KNOWN = 0.95
"""Share of the samples that have a field, from which those without are exceptions."""

_ENOUGH = 3_000
"""Samples with which the declared run length was measured to hold (docs/detection.md)."""

_ALIKE = 0.5
"""Share of the commonest response: with 0.6 a clean continuation paged as declared, from 0.8 on up to 12 times that."""

_FAILING = 0.9
"""Share of failures from which a check's limit, which has a tolerance, is 1."""

_SPANS = 8
_TREND = 0.5
"""Share of the variance along one dimension that lies between spans of time: a counter in the text has 0.85 there, the
answers of tests/captures/drift 0.01."""


def on(prepared: Prepared, counted: Counted, features: Features, projected: Projected, parts: Thirds) -> list[str]:
    """Remarks on a baseline and the samples that it is made of, one line each; none if there is nothing to say."""
    return [*_made_of(prepared), *_moved(projected, parts), *_watched(counted, features), *_few(len(prepared.samples))]


def _made_of(prepared: Prepared) -> Iterator[str]:
    samples = prepared.samples
    n = len(samples)
    if repeats := prepared.left_out.get(REPEATED, 0):
        yield f"{repeats} of {n + sum(prepared.left_out.values())} samples are copies of others: each counts once"
    times = max(Counter(sample.response for sample in samples).values())
    if times > _ALIKE * n:
        yield (
            f"{times} of {n} responses are the same text ({n - times} others): false alarms may come ten times as "
            "often as declared; more samples help"
        )
    models = Counter(sample.model for sample in samples)
    if len(models) > 1:
        named = ", ".join(f"{name or 'none named'} {times}" for name, times in models.most_common(4))
        yield f"{len(models)} models in one baseline ({named}): a change of their shares looks like drift"
    yield from _times(samples)
    if unasked := sum(not sample.prompt.strip() for sample in samples):
        yield f"{unasked} of {n} samples have no prompt: their responses are judged without the question"
    yield from _fields(samples)


def _fields(samples: list[Sample]) -> Iterator[str]:
    """Fields that checks need, which some samples have and too many have not."""
    known = {
        "finish_reason": sum(bool(sample.finish_reason) for sample in samples),
        "mean_logprob": sum(math.isfinite(measures_of(sample)[1]) for sample in samples),
    }
    for field, times in known.items():
        if 0 < times < _KNOWN * len(samples):
            yield f"{times} of {len(samples)} samples have a {field}: checks that need it are counted on these alone"
    if strange := sum(sample.mean_logprob is not None and math.isnan(sample.mean_logprob) for sample in samples):
        yield f"{strange} of {len(samples)} samples have a mean_logprob that is not a number: they count as without"


def _times(samples: list[Sample]) -> Iterator[str]:
    times = [sample.time for sample in samples]
    if untimed := times.count(0.0):
        yield f"{untimed} of {len(times)} samples have no time: all are taken in the order in which they were read"
    elif times != sorted(times):
        yield "the samples were not in the order of time; they were sorted"


def _moved(projected: Projected, parts: Thirds) -> Iterator[str]:
    """Whether responses changed with time, as a counter does: a detector of change is calibrated on no change."""
    held = np.concatenate([parts.whitening, parts.calibration])
    rows, block = projected.response[held], parts.block[held]
    span = block * _SPANS // (int(parts.block.max()) + 1)
    within = sum(rows[span == each].var(axis=0) * np.count_nonzero(span == each) for each in range(_SPANS))
    share = float(np.max(1 - within / np.maximum(rows.var(axis=0) * len(rows), 1e-9)))
    if share > _TREND:
        yield (
            f"the responses changed steadily while they were recorded ({share:.0%} of how they vary in one respect is "
            "when they were given): such change alarms; leave out of them what counts up, or record them anew"
        )


def _watched(counted: Counted, features: Features) -> Iterator[str]:
    clear = sum(counted.languages.values())
    often = {code: times / clear for code, times in counted.languages.items() if times >= _MIXED * clear}
    if len(often) > 1:
        shares = ", ".join(f"{code} {share:.0%}" for code, share in sorted(often.items(), key=lambda item: -item[1]))
        yield f"languages are mixed ({shares}): each needs samples enough of its own"
    for check, counts in counted.checks.items():
        failed, judged = sum(counts.failures), sum(counts.judged)
        if failed > _FAILING * judged:
            yield f"check {check} fails in {failed} of {judged} samples: it can never alarm; look whether they are well"
    for segment, inside in counted.scarce.items():
        yield f"segment {segment} has {inside} samples to count checks on, {LEAST} are needed: it is not watched"
    if not features.prompt_dimensions:
        yield "no prompt channel: there are too few prompts, or they are all alike"


def _few(n: int) -> Iterator[str]:
    if n < _ENOUGH:
        yield (
            f"{n} samples are few: with {_ENOUGH:,} the declared run length holds for other mixes of questions, too; "
            "with a thousand false alarms come up to twice as often then"
        )
