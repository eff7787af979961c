"""Recorded samples through the redaction, embedder, checks and detectors of the daemon: what would have alarmed.

The file's order is the order of time, whatever the samples say: that is what the evaluator would have seen.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline import manifest
from palegreen.evaluators.baseline.engine import engine
from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.prepare import left_out
from palegreen.evaluators.baseline.progress import Bar
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.detectors.latch import Turn
from palegreen.evaluators.drift import remarks
from palegreen.evaluators.drift.alarm import CHANNELS, Alarm
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.watch import Result, Watch
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.scored import Scored
from palegreen.runtime.yamlfile import ConfigError, Document


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm, and the sample that released it; None: it was still up at the end."""

    alarm: Alarm
    released: int | None


@dataclass(slots=True)
class Replay:
    """What came of a file. `ratios` (samples, channels) are the highest of all replicas, NaN for a channel that the
    baseline has not; `texts` are the redacted samples that alarms name, by what they are called there."""

    baseline: manifest.Manifest
    every: float
    total: int
    results: dict[Result, int]
    alarms: list[Raised]
    ratios: NDArray[np.float32]
    seconds: float | None
    remarks: list[str]
    texts: dict[str, Sample] = field(default_factory=dict)

    @property
    def watched(self) -> int:
        """Samples that were compared with the baseline."""
        return self.results.get("watched", 0)

    @property
    def scant(self) -> bool:
        """Whether too few were for silence to mean anything."""
        return remarks.scant(self.watched, self.total)

    @property
    def expected(self) -> float:
        """False pages to be expected in so many samples."""
        return self.watched / self.every

    def per_day(self, times: float) -> float | None:
        """So many in the time that the file covers, a day; None if the samples do not tell it."""
        return times / (self.seconds / 86400) if self.seconds else None

    def as_json(self) -> dict[str, Any]:
        """What other programs read; further keys may follow at the end."""
        return {
            "samples": self.total,
            "baseline": self.baseline.id,
            "false_alarm_every_samples": round(self.every),
            "alarms": [
                {
                    "sample": alarm.sample,
                    "id": alarm.id,
                    "channel": alarm.channel,
                    "checks": list(alarm.checks),
                    "since": alarm.since,
                    "segment": alarm.segment or None,
                    "replica": alarm.replica or None,
                    "pages": alarm.pages,
                    "side": alarm.side,
                    "moved": list(alarm.moved),
                    "released": released,
                }
                for alarm, released in ((each.alarm, each.released) for each in self.alarms)
            ],
            "expected_false_alarms": round(self.expected, 6),
            "results": self.results,
            "remarks": self.remarks,
        }


def replay(folder: Path, source: Path, config: Path | None, bar: Bar, on: str = "local") -> Replay:
    """Replay the samples of `source` against the baseline of `folder`.

    `config` is the evaluator's configuration, of which redaction, checks, segments and embedder are taken; without one
    the embedder is the baseline's. `on` is the engine, `local` or `ray`.

    Raises:
        BaselineError, ConfigError, EmbedderError: it cannot be; one line.
    """
    settings = Document.read(config).validate(EvaluateConfig) if config is not None else None
    of = manifest.load(folder)
    if of.run_length is None or not of.arrays:
        raise ConfigError(f"{folder}: the baseline was not calibrated; allowed: one that `baseline fit` made")
    model = Model.load(folder, of)
    chosen = settings.embedder if settings is not None else of.embedder.name if of.embedder is not None else "none"
    settings = settings or EvaluateConfig()
    found = embedder(chosen, settings.offline_threads())
    if found is None or (problem := manifest.mismatch(of, found)):
        raise BaselineError(problem if found is not None else "a backtest needs the baseline's embedder, not none")
    checks = build(settings.checks)
    watch = Watch(model, settings.drift.segments.named(), most=math.inf)
    with engine(on, found, settings) as working:
        with bar("reading and redacting", 0) as done:
            recorded = []
            for sample in working.redacted(source):
                recorded.append(sample)
                done(1)
        if not recorded:
            raise BaselineError(f"{source}: holds no samples; allowed: one or more")
        ratios = np.full((len(recorded), len(CHANNELS)), np.nan, np.float32)
        raised: dict[int, Raised] = {}
        up: dict[tuple[str, str], int] = {}
        told: Counter[str] = Counter()
        fair = 0
        with bar("replaying", len(recorded)) as done:
            for number, vectors in enumerate(chain.from_iterable(working.embedded(recorded))):
                sample = recorded[number]
                _finite(number, sample, vectors, source)
                outcomes = checks.run(View(sample, vectors, of.quantiles))
                if not left_out(sample):
                    fair += 1
                    told.update(check for check, said in outcomes.items() if said and said[:2] != (None, None))
                for turn, alarm, _, _ in watch.observe([Scored(sample, outcomes)], [vectors]):
                    whose = (alarm.channel, alarm.replica)
                    if turn is Turn.RAISED:
                        up[whose] = len(raised)
                        raised[len(raised)] = Raised(alarm, None)
                    else:
                        raised[up.pop(whose)] = Raised(alarm, number)
                ratios[number] = _highest(watch)
                done(1)
    times = [sample.time for sample in recorded if sample.time]
    replayed = Replay(
        baseline=of,
        every=of.run_length.samples,
        total=len(recorded),
        results=watch.samples,
        alarms=list(raised.values()),
        ratios=ratios,
        seconds=(max(times) - min(times)) or None if times and len(times) == len(recorded) else None,
        remarks=remarks.on(recorded, model, watch.samples.get("watched", 0), told, fair),
    )
    for name in {name for each in replayed.alarms for name in each.alarm.moved}:
        if (place := _number(name, recorded)) is not None:
            replayed.texts[name] = recorded[place]
    return replayed


def _finite(number: int, sample: Sample, vectors: VectorsOf, source: Path) -> None:
    for part, vector in vectors.items():
        if not np.isfinite(vector).all():
            raise BaselineError(
                f"{source}: sample {number} ({sample.id[:100] or 'without id'}): the embedding of its {part} holds "
                "NaN or infinity; allowed: numbers"
            )


def _highest(watch: Watch) -> list[float]:
    replicas = watch.replicas.values()
    return [
        max((each.ratios[channel] for each in replicas if channel in each.ratios), default=np.nan)
        for channel in CHANNELS
    ]


def _number(name: str, recorded: list[Sample]) -> int | None:
    """Of the sample that an alarm calls so."""
    if name.startswith("#") and name[1:].isdecimal():
        return int(name[1:])
    return next((at for at, sample in enumerate(recorded) if sample.id and sample.id.startswith(name)), None)
