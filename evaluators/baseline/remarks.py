"""What a person should know of a baseline before trusting it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from palegreen.evaluators.baseline.features import Features, measures_of
from palegreen.evaluators.sample import Sample

_MIXED = 0.05
"""Share from which a second language is one of the baseline's."""

_KNOWN = 0.95
"""Share of the samples that have a field, from which those without are exceptions."""

_ENOUGH = 3_000
"""Samples with which the declared run length was measured to hold (docs/detection.md)."""


def on(samples: Sequence[Sample], languages: Mapping[str, int], features: Features) -> list[str]:
    """Remarks on samples that a baseline is made of, one line each; none if there is nothing to say."""
    n = len(samples)
    found = []
    models = Counter(sample.model for sample in samples)
    if len(models) > 1:
        named = ", ".join(f"{name or 'none named'} {times}" for name, times in models.most_common(4))
        found.append(f"{len(models)} models in one baseline ({named}): a change of their shares looks like drift")
    clear = sum(languages.values())
    often = {code: times / clear for code, times in languages.items() if times >= _MIXED * clear}
    if len(often) > 1:
        shares = ", ".join(f"{code} {share:.0%}" for code, share in sorted(often.items(), key=lambda item: -item[1]))
        found.append(f"languages are mixed ({shares}): each needs samples enough of its own")
    times = [sample.time for sample in samples]
    untimed = times.count(0.0)
    if untimed:
        found.append(f"{untimed} of {n} samples have no time: all are taken in the order in which they were read")
    elif times != sorted(times):
        found.append("the samples were not in the order of time; they were sorted")
    unasked = sum(not sample.prompt.strip() for sample in samples)
    if unasked:
        found.append(f"{unasked} of {n} samples have no prompt: their responses are judged without the question")
    for field, known in _partly(samples):
        found.append(f"{known} of {n} samples have a {field}: checks that need it are counted on these alone")
    if strange := sum(sample.mean_logprob is not None and math.isnan(sample.mean_logprob) for sample in samples):
        found.append(f"{strange} of {n} samples have a mean_logprob that is not a number: they count as without")
    if not features.prompt_dimensions:
        found.append("no prompt channel: there are too few prompts, or they are all alike")
    if n < _ENOUGH:
        found.append(
            f"{n} samples are few: with {_ENOUGH:,} the declared run length holds for other mixes of questions, too; "
            "with a thousand false alarms come up to twice as often then"
        )
    return found


def _partly(samples: Sequence[Sample]) -> list[tuple[str, int]]:
    """Fields that checks need, which some samples have and too many have not, and how many have them."""
    known = {
        "finish_reason": sum(bool(sample.finish_reason) for sample in samples),
        "mean_logprob": sum(math.isfinite(measures_of(sample)[1]) for sample in samples),
    }
    return [(field, times) for field, times in known.items() if 0 < times < _KNOWN * len(samples)]
