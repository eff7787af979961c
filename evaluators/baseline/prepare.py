"""Recorded samples made ready: those that count for statistics, redacted and embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from palegreen.evaluators.baseline.engine import Engine
from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.features import Rows, measures_of
from palegreen.evaluators.baseline.progress import Bar
from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.sample import Sample

NEEDED = 600
"""Samples that a baseline is made of at least: below, its own error is what alarms."""
OTHERS = 50
"""Samples at least whose response is not the commonest one: with 40 a clean continuation paged seven times as often as
declared."""
REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Gathered:
    """Redacted samples that count for statistics, in the order they were read; the others by reason, see `left_out`;
    REPEATED: a copy of one that was read before.
    """

    samples: list[Sample]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class Prepared(Gathered):
    """The same with their vectors, and these as rows."""

    vectors: list[VectorsOf]
    rows: Rows


def left_out(sample: Sample) -> str:
    """Why a sample is no part of any statistic of drift; empty if it is one.

    `kept`: kept for a reason, so no fair share; `failed`: the request did; `tools`: tool calls alone;
    `empty`: nothing was answered.
    """
    if sample.sampled == "kept":
        return "kept"
    if sample.error or sample.ended == "error" or (sample.status or 0) >= 400:
        return "failed"
    if sample.response.strip():
        return ""
    return "tools" if sample.tool_calls else "empty"


def gather(samples: Iterable[Sample], bar: Bar) -> Gathered:
    """Take redacted samples as they are read, each once.

    Raises:
        BaselineError: fewer than NEEDED samples count, or nearly all responses are one text.
    """
    used: list[Sample] = []
    reasons: Counter[str] = Counter()
    seen: set[tuple[object, ...]] = set()
    with bar("reading and redacting", 0) as done:
        for sample in samples:
            own = _own(sample)
            reason = REPEATED if own in seen else left_out(sample)
            if own:
                seen.add(own)
            if reason:
                reasons[reason] += 1
            else:
                used.append(sample)
            done(1)
    _enough(used, reasons)
    return Gathered(used, dict(reasons))


def embed(gathered: Gathered, engine: Engine, bar: Bar) -> Prepared:
    """Embed what was gathered. Raises BaselineError where an embedding is not finite."""
    samples, vectors = gathered.samples, list[VectorsOf]()
    with bar(f"embedding ({engine.embedder.name})", len(samples)) as done:
        for batch in engine.embedded(samples):
            vectors += batch
            done(len(batch))
    measures = [measures_of(sample) for sample in samples]
    try:
        return Prepared(samples, gathered.left_out, vectors, Rows.of(vectors, measures))
    except ValueError as refused:
        raise BaselineError(f"{refused}; allowed: numbers; the embedder is {engine.embedder.name}") from None


def _own(sample: Sample) -> tuple[object, ...]:
    """What no other sample has, so that a copy is known; nothing where words alone tell: a model may repeat itself."""
    if not sample.id and not (sample.time and sample.prompt):
        return ()
    return sample.id, sample.time, sample.choice, sample.prompt, sample.response


def _enough(used: list[Sample], reasons: Counter[str]) -> None:
    if len(used) < NEEDED:
        others = ", ".join(f"{times} {reason}" for reason, times in sorted(reasons.items()))
        raise BaselineError(
            f"too few samples: {len(used)} can be used{f' ({others} left out)' if others else ''}; "
            f"needed: {NEEDED}, {NEEDED - len(used)} more"
        )
    alike = max(Counter(sample.response for sample in used).values())
    if alike == len(used):
        raise BaselineError(
            f"all {len(used)} responses are the same text; allowed: samples of what users ask, whose responses differ"
        )
    if (rest := len(used) - alike) < OTHERS:
        raise BaselineError(
            f"{alike} of {len(used)} responses are the same text; needed: {OTHERS} others, {OTHERS - rest} more"
        )
