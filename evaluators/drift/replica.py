"""One replica as the detectors see it: three channels, their latches, and the last samples. 64 KB at most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.features import Floats
from palegreen.evaluators.detectors.latch import Latch, Turn
from palegreen.evaluators.detectors.mewma import Mewma, State
from palegreen.evaluators.drift.alarm import CHANNELS, Alarm, Channel, Event
from palegreen.evaluators.drift.change import located
from palegreen.evaluators.drift.evidence import Evidence, Row, named
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.ring import Ring

BYTES = 64 << 10
"""State of a replica at most."""
_FIXED = 1024  # of latches, ratios and counts
_LEAST = 16 << 10  # of the ring, where very many checks and segments take the rest
_NAMED = 5
_MOVED = 3.0  # standard errors
_ENOUGH = 24  # samples at least that tell whether a measure moved
Markers = Callable[[str, float], list[str]]
"""Of a replica and a time: what changed there since, in a few words each."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample for the detectors. `response` and `prompt` are whitened, None where there is nothing to see; `packed`
    are the same for the ring; `cluster` is -1 for a prompt outside the baseline's; `values` are those of `Rows`."""

    number: int
    time: float
    id: str
    cluster: int
    response: Floats | None
    prompt: Floats | None
    packed: Mapping[str, NDArray[np.uint8] | None]
    values: NDArray[np.float32]
    segments: tuple[str, ...] = ()


class Replica:
    """The detectors of one replica."""

    def __init__(self, name: str, model: Model, markers: Markers) -> None:
        self.name = name
        self.alarms: dict[Channel, Alarm] = {}
        self.last = 0.0
        """When its last sample was, epoch seconds; 0 if there was none."""
        self.ratios: dict[Channel, float] = dict.fromkeys((*model.calibrations, "check"), 0.0)
        self._model, self._markers = model, markers
        self._mewma = {channel: Mewma(calibration) for channel, calibration in model.calibrations.items()}
        self._evidence = Evidence(model.rows)
        self._latches = {channel: Latch() for channel in self.ratios}
        taken = sum(_bytes(each.state()) for each in self._mewma.values()) + _bytes(self._evidence.state())
        dimensions: dict[str, int] = {channel: model.dimensions(channel) for channel in model.calibrations}
        self._ring = Ring(dimensions, model.rows.streams, max(BYTES - taken - _FIXED, _LEAST))

    def observe(self, seen: Seen) -> list[Event]:
        """Take a sample; alarms that it raised or released."""
        self._ring.push(seen.number, seen.time, seen.id, seen.packed)
        moved: list[Channel] = []
        if seen.response is not None and seen.cluster >= 0:
            self.ratios["response"] = self._mewma["response"].update(seen.response, seen.cluster)
            moved.append("response")
        if seen.prompt is not None:
            self.ratios["prompt"] = self._mewma["prompt"].update(seen.prompt)
            moved.append("prompt")
        if seen.cluster >= 0:
            self.ratios["check"], high = self._evidence.update(seen.values, seen.cluster, seen.segments, seen.number)
            self._ring.mark(high)
            moved.append("check")
        return [event for channel in moved if (event := self._turned(channel, seen)) is not None]

    def by_check(self) -> dict[str, float]:
        """See `Evidence`."""
        return self._evidence.by_check()

    def reset(self) -> None:
        """Forget what was seen and what had alarmed, not what is normal."""
        for channel, latch in self._latches.items():
            latch.reset()
            self._forget(channel)
        self.alarms.clear()

    def _turned(self, channel: Channel, seen: Seen) -> Event | None:
        turn = self._latches[channel].update(self.ratios[channel])
        if turn is Turn.RAISED:
            alarm = self.alarms[channel] = self._explained(channel, seen)
        elif turn is Turn.RELEASED:
            alarm = self.alarms.pop(channel)
            self._forget(channel)
        else:
            return None
        return Event(turn, alarm, seen.number, seen.time)

    def _forget(self, channel: Channel) -> None:
        (self._evidence if channel == "check" else self._mewma[channel]).reset()
        self.ratios[channel] = 0.0

    def _explained(self, channel: Channel, seen: Seen) -> Alarm:
        samples = self._ring.samples()
        carrying = self._evidence.strongest()
        rows = [row for row, _ in carrying]
        top: Row | None = None
        measures: list[str] = []
        if channel == "check":
            top, since = carrying[0]
            moved = samples[(samples["number"] >= since) & self._ring.high(top.stream, samples)][::-1]
        else:
            vectors = self._ring.vectors(channel, samples)
            there = ~np.isnan(vectors[:, 0])
            samples = samples[there]
            change = located(vectors[there])
            if channel == "response":
                measures = self._measures(vectors[there][max(0, min(change.at, len(samples) - _ENOUGH)) :])
            since = int(samples["number"][change.at])
            moved = samples[change.at + np.argsort(-change.moved[change.at :], kind="stable")]
        first = samples[np.searchsorted(samples["number"], since).clip(max=len(samples) - 1)]
        since_time = float(first["time"])
        prompts_too = "prompt" in self.alarms or self.ratios.get("prompt", 0.0) > 1
        return Alarm(
            channel=channel,
            replica=self.name,
            sample=seen.number,
            id=seen.id,
            time=seen.time,
            since=since,
            since_time=since_time,
            checks=() if channel == "prompt" else tuple(dict.fromkeys((*measures, *named(rows))))[:_NAMED],
            segment=top.segment if top is not None else "",
            side="prompt" if channel == "prompt" else "both" if prompts_too else "response",
            moved=tuple(_called(sample) for sample in moved[:_NAMED]),
            markers=tuple(self._markers(self.name, since_time)),
        )

    def _measures(self, vectors: NDArray[Any]) -> list[str]:
        """Measures of the response whose mean moved, of whitened vectors since the change, (n, d)."""
        names = self._model.features.measures
        moved = np.abs(vectors[:, : len(names)].mean(axis=0)) * math.sqrt(len(vectors))
        return [names[at] for at in np.argsort(-moved, kind="stable") if moved[at] > _MOVED]

    def state(self) -> dict[str, State]:
        """To go on from after a restart; the alarms are kept apart."""
        parts: dict[str, State] = {f"mewma.{channel}": each.state() for channel, each in self._mewma.items()}
        parts |= {f"latch.{channel}": each.state() for channel, each in self._latches.items()}
        ratios = np.array([self.ratios.get(channel, 0.0) for channel in CHANNELS])
        return parts | {"evidence": self._evidence.state(), "ring": self._ring.state(), "ratios": {"all": ratios}}

    def restore(self, parts: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Go on from a state. Raises ValueError or KeyError, if it is not one of this baseline."""
        for channel, mewma in self._mewma.items():
            mewma.restore(dict(parts[f"mewma.{channel}"]))
        for channel, latch in self._latches.items():
            latch.restore(dict(parts[f"latch.{channel}"]))
            if latch.raised != (channel in self.alarms):
                raise ValueError("an alarm without its reasons")
        self._evidence.restore(parts["evidence"])
        self._ring.restore(parts["ring"])
        self.last = float(self._ring.samples()["time"].max(initial=0.0))
        for channel, ratio in zip(CHANNELS, parts["ratios"]["all"].tolist(), strict=True):
            if channel in self.ratios:
                self.ratios[channel] = ratio


def moment(sample_time: float) -> float:
    """When a sample was; now where it does not say."""
    return sample_time or time.time()


def _bytes(state: State) -> int:
    return sum(array.nbytes for array in state.values())


def _called(sample: Any) -> str:
    """A sample's id, or its number where it has none."""
    return sample["id"].decode(errors="replace") or f"#{int(sample['number'])}"
