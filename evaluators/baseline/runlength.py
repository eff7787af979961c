"""How seldom false alarms may come: what was declared, in samples, and which part of it each detector gets."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.detectors.combine import allotted
from palegreen.evaluators.sample import Sample
from palegreen.runtime.quantity import seconds
from palegreen.runtime.settings import Section

LEAST = 100
PAGING = 2
"""Parts that page: the detector of responses and the checks."""


class RunLength(Section):
    """The declared average run length to a false page of all that pages for the model together, in samples.

    Samples are counted over all replicas together. If replicas are independent, then each may alarm once in so many
    samples *of its own*: the replicas together then page once in so many of all. A share says how many samples go by,
    on average, between the false alarms of one part: `response` and `checks` page, so each gets twice the whole;
    `prompt` informs and pages nobody.
    """

    declared: str = Field(description="as it was given")
    samples: float
    samples_per_second: float | None = Field(None, description="of all replicas together, where it was a duration")
    replicas: int = Field(1, ge=1)
    shares: dict[str, float]
    how: str


def declare(text: str, samples: Sequence[Sample], replicas: int | None) -> RunLength:
    """The run length of `20000` (samples) or `30d` (at the rate of the recorded samples).

    Args:
        text: a whole number of samples, or a duration with its unit.
        samples: those that count for statistics.
        replicas: of the model; None: as many as the samples name, one if they name none.

    Raises:
        BaselineError: it is neither, it is too short, or the samples cannot tell a rate.
    """
    seen = len({sample.replica for sample in samples if sample.replica}) or 1
    replicas = replicas or seen
    option = f"--false-alarm-every {text}"
    if text.strip().isdecimal():
        length, rate = float(text), None
        how = f"{text} samples of all replicas together"
    else:
        try:
            duration = seconds(text)
        except ValueError:
            raise BaselineError(f"{option}: allowed: a number of samples, or a duration such as 30d") from None
        rate = _rate(option, samples) / seen * replicas
        length = duration * rate
        how = f"{text} at {rate:.4g} samples a second, the rate of the recorded samples"
        if replicas != seen:
            how += f" of {seen} replicas times {replicas / seen:.4g}, for {replicas}"
    if length < LEAST:
        raise BaselineError(f"{option}: is {length:.0f} samples; allowed: {LEAST} or more")
    paging = allotted(length, PAGING)
    return RunLength(
        declared=text,
        samples=length,
        samples_per_second=rate,
        replicas=replicas,
        shares={"response": paging, "checks": paging, "prompt": length},
        how=how,
    )


def _rate(option: str, samples: Sequence[Sample]) -> float:
    times = [sample.time for sample in samples if sample.time]
    if len(times) < len(samples):
        raise BaselineError(
            f"{option}: {len(samples) - len(times)} of {len(samples)} samples have no time, so a duration has no rate; "
            "allowed: a number of samples"
        )
    span = max(times) - min(times)
    if span <= 0:
        raise BaselineError(f"{option}: all samples have the same time, so a duration has no rate; allowed: a number")
    return (len(times) - 1) / span
