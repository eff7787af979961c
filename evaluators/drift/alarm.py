"""An alarm, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from palegreen.evaluators.detectors.latch import Turn
from palegreen.runtime.exposition import Readings

Channel = Literal["response", "prompt", "check"]
CHANNELS: tuple[Channel, ...] = ("response", "prompt", "check")
PAGES: frozenset[str] = frozenset(("response", "check"))
"""The channels whose alarms page; that of prompts informs."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Raised with one sample. Samples are counted from 0 in the order in which they came, times are epoch seconds."""

    channel: Channel
    replica: str
    sample: int
    id: str
    time: float
    since: int
    """The first sample of the change, by estimate; the oldest one that is still known, if it began before."""
    since_time: float
    checks: tuple[str, ...]
    """Checks, scores and scalar channels that carry evidence, most first; they are of answers, so none of questions."""
    segment: str
    """The segment in which there is most of it, empty where that is the whole traffic."""
    side: Literal["response", "prompt", "both"]
    """What changed: the answers to like questions, the questions, or both."""
    moved: tuple[str, ...]
    """Ids of the samples since then that lie farthest out, or failed last."""
    markers: tuple[str, ...]
    """What else changed about then, such as a deploy."""

    @property
    def pages(self) -> bool:
        """Whether somebody is to be woken."""
        return self.channel in PAGES


class Event(NamedTuple):
    """What a sample did to an alarm: `number` and `time` are that sample's."""

    turn: Turn
    alarm: Alarm
    number: int
    time: float


def alarms_of(readings: Readings) -> list[str]:
    """The alarms that are up, as the labels of their series, for a status page."""
    lines = readings.lines.get("palegreen_drift_alarm", "").splitlines()
    return [line[line.index("{") + 1 : line.rindex("}")] for line in lines if line.endswith(" 1.0")]
