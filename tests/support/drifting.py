"""A baseline with detectors truly calibrated, and what the evaluator makes of samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from palegreen.evaluators.baseline.engine import Local
from palegreen.evaluators.baseline.fit import Detectors, Fitted, fit
from palegreen.evaluators.baseline.prepare import embed, gather
from palegreen.evaluators.baseline.progress import silent
from palegreen.evaluators.baseline.runlength import declare
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.config import RedactionConfig
from palegreen.evaluators.detectors.bounds import limits
from palegreen.evaluators.detectors.calibrate import calibrate
from palegreen.evaluators.drift.alarm import Event
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.watch import Watch
from palegreen.evaluators.embed.parts import VectorsOf, vectors_of
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.scored import Scored
from support.fitting import START, Embedder, recorded

SEGMENTS = (("tenant", "acme"), ("endpoint", "chat"), ("language", "fi"))
_CHECKS = build({"language": {"enabled": False}})


def traffic(n: int, seed: int, **fields: Any) -> list[Sample]:
    """Samples as those of the baseline: every third is of the tenant acme, all are of the endpoint chat."""
    samples = recorded(n, seed=seed, endpoint="chat", **fields)
    for at, sample in enumerate(samples):
        sample.team = "acme" if at % 3 == 0 else "other"
        sample.response = sample.response.replace(f", number {at}", "")
    return samples


@cache
def baseline() -> Fitted:
    """Of 900 samples; a false page every 2,000.

    One baseline is luckier than another: how long they last on average is tested in test_run_length.py.
    """
    redactor = Redactor(RedactionConfig())
    gathered = gather(map(redactor.sample, traffic(900, seed=10)), silent)
    return fit(
        embed(gathered, Local(Embedder(), redactor), silent),
        Embedder(),
        _CHECKS,
        Detectors(calibrate, limits),
        declare("2000", gathered.samples, None),
        segments=SEGMENTS,
        seed=0,
        created=START,
        bar=silent,
    )


@cache
def model() -> Model:
    """The same, loaded."""
    made = baseline()
    return Model(made.manifest.model_copy(update={"id": "b1"}), made.arrays)


def scored(samples: Sequence[Sample]) -> tuple[list[Scored], list[VectorsOf]]:
    """What the pipeline hands over."""
    vectors = vectors_of(Embedder(), samples)
    quantiles = baseline().manifest.quantiles
    outcomes = [_CHECKS.run(View(sample, each, quantiles)) for sample, each in zip(samples, vectors, strict=True)]
    return [Scored(*each) for each in zip(samples, outcomes, strict=True)], vectors


def feed(watch: Watch, samples: Sequence[Sample]) -> list[Event]:
    """Have them watched in batches."""
    events = []
    for at in range(0, len(samples), 32):
        events += watch.observe(*scored(samples[at : at + 32]))
    return events
