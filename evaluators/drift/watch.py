"""Each scored sample beside the baseline: what alarms, on which replica, and why."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from palegreen.evaluators.baseline.prepare import left_out
from palegreen.evaluators.baseline.segments import Named, name, names_of
from palegreen.evaluators.detectors.latch import Turn
from palegreen.evaluators.drift.alarm import Alarm, Event
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.project import NOWHERE, Row, projected, sound
from palegreen.evaluators.drift.replica import Markers, Replica, Seen, moment
from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.scored import Scored
from palegreen.runtime.exposition import Collected
from palegreen.runtime.seldom import Seldom
from palegreen.runtime.tally import OTHER

log = structlog.get_logger()

REPLICAS = 64
"""Replicas at most; those above are not compared, and counted."""
SILENT = 3600.0
"""Seconds without a sample after which a replica gives way to a new one."""
Result = Literal["watched", "outside", "unfit", "kept", "failed", "tools", "empty", "too_many_replicas"]


class Whose(NamedTuple):
    """Labels of a replica's series."""

    model: str
    endpoint: str
    replica: str


def no_markers(_replica: str, _since: float) -> list[str]:
    """Nothing else is known to have changed."""
    return []


class Watch:
    """Compares samples with a baseline, replica by replica.

    Args:
        model: of the baseline.
        segments: parts of the traffic that are to be watched by themselves; only those that the baseline has limits
            for are.
        markers: of a replica and a time, what changed there since.
        most: replicas that are told apart at once; `math.inf` for as many as there are.
    """

    def __init__(
        self, model: Model, segments: Sequence[Named] = (), markers: Markers = no_markers, most: float = REPLICAS
    ) -> None:
        self.model = model
        self.seen = 0
        """Samples so far, of all kinds: the number of the next one."""
        self.replicas: OrderedDict[str, Replica] = OrderedDict()
        self.whose: dict[str, Whose] = {}
        self._segments = tuple(each for each in segments if each in model.segments)
        self._markers = markers
        self._most = most
        self._results: Counter[tuple[Whose, Result]] = Counter()
        self._gone: Counter[Result] = Counter()  # of replicas that were forgotten
        self._alarms: Counter[tuple[Whose, str]] = Counter()
        self._resets: Counter[tuple[Whose, str]] = Counter()
        self._seldom = Seldom()
        if missing := [name(each) for each in segments if each not in model.segments]:
            log.warning("drift.segments", without=", ".join(missing), cause="the baseline has no limits for them")

    @property
    def signature(self) -> str:
        """Of what a state is of: the baseline, its rows, and the segments that are told apart."""
        return f"{self.model.signature} {','.join(map(name, self._segments))}"

    @property
    def samples(self) -> dict[Result, int]:
        """How many samples were what, see `palegreen_drift_watched_samples_total`."""
        found = self._gone.copy()
        for (_, result), times in self._results.items():
            found[result] += times
        return dict(found)

    def observe(self, batch: Sequence[Scored], vectors: Sequence[VectorsOf]) -> list[Event]:
        """Take samples that were scored, with their vectors: alarms raised and released, in their order."""
        fit: list[int] = []
        results: list[Result] = []
        for at, scored in enumerate(batch):
            result: Result = left_out(scored.sample) or "watched"  # type: ignore[assignment]  # its words are of Result
            if result == "watched" and not sound(vectors[at]):
                result = "unfit"
                self._unfit(scored.sample)
            elif result == "watched":
                fit.append(at)
            results.append(result)
        rows = iter(projected(self.model, [batch[at].sample for at in fit], [vectors[at] for at in fit]))
        events: list[Event] = []
        for scored, result in zip(batch, results, strict=True):
            sample = scored.sample
            row = next(rows) if result == "watched" else NOWHERE
            replica, whose = self._replica(sample)
            if replica is None:
                result = "too_many_replicas"
            elif result == "watched":
                if row.cluster < 0:
                    result = "outside"
                values = self.model.rows.values(scored.outcomes, row.scalars)
                segments = tuple(names_of(sample, self._segments)) if self._segments else ()
                events += self._told(replica, whose, self._seen_as(sample, row, values, segments))
            elif result == "empty":
                empty = self.model.rows.values({each: scored.outcomes.get(each) for each in ("empty",)}, {})
                events += self._told(replica, whose, self._seen_as(sample, row, empty, ()))
            self._results[whose, result] += 1
            self.seen += 1
        return events

    def clear(self) -> None:
        """As at the start, with no replica known."""
        self.replicas.clear()
        self.whose.clear()
        self.seen = 0

    def resets(self, replica: str, reason: str) -> None:
        """Count and log that a replica's detectors began anew."""
        self._resets[self.whose[replica], reason] += 1
        log.info("drift.reset", replica=replica, reason=reason, baseline=self.model.manifest.id)

    def show(self, collected: Collected, namespace: str, pod: str) -> None:
        """Add what is published of all replicas."""
        for each in self.replicas.values():
            whose = self.whose[each.name]
            labels = (*whose, namespace, pod)
            for channel, ratio in each.ratios.items():
                collected.add("palegreen_drift_score_ratio", max(ratio, 0.0), *labels, channel)
                collected.add("palegreen_drift_alarm", channel in each.alarms, *labels, channel)
                collected.add("palegreen_drift_alarms_total", self._alarms[whose, channel], *labels, channel)
            for channel, alarm in each.alarms.items():
                since = alarm.since_time
                collected.add("palegreen_drift_alarm_since_timestamp_seconds", since, *labels, channel)
            for check, ratio in each.by_check().items():
                collected.add("palegreen_drift_check_evidence_ratio", ratio, *labels, check)
        shown = {self.whose[each] for each in self.replicas}
        for (whose, result), times in self._results.items():
            if whose in shown or result == "too_many_replicas":
                collected.add("palegreen_drift_watched_samples_total", times, *whose, namespace, pod, result)
        for (whose, reason), times in self._resets.items():
            if whose in shown:
                collected.add("palegreen_drift_resets_total", times, *whose, namespace, pod, reason)

    def admit(self, whose: Whose) -> Replica:
        """A replica that is not known yet."""
        if self.model.manifest.models and whose.model not in self.model.manifest.models:
            known = ", ".join(sorted(self.model.manifest.models)) or "none named"
            log.warning("drift.other_model", replica=whose.replica, model=whose.model, baseline_of=known)
        self.whose[whose.replica] = whose
        found = self.replicas[whose.replica] = Replica(whose.replica, self.model, self._markers)
        return found

    def _replica(self, sample: Sample) -> tuple[Replica | None, Whose]:
        """Whose a sample is; None of a replica too many, and labels of which there are few."""
        now = moment(sample.time)
        found = self.replicas.get(sample.replica)
        if found is None and not self._room(now):
            self._too_many(sample.replica)
            known = sample.model in self.model.manifest.models
            return None, Whose(sample.model if known else OTHER, OTHER, OTHER)
        if found is None:
            found = self.admit(Whose(sample.model, sample.endpoint, sample.replica))
        self.replicas.move_to_end(sample.replica)
        found.last = now
        return found, self.whose[sample.replica]

    def _room(self, now: float) -> bool:
        """Whether there is, or can be made, room for one more replica. One that still answers never gives way."""
        if len(self.replicas) < self._most:
            return True
        gone, oldest = next(iter(self.replicas.items()))
        if now - oldest.last < SILENT:
            return False
        del self.replicas[gone]
        labels = self.whose.pop(gone)
        for (whose, result), times in self._results.items():
            if whose == labels:
                self._gone[result] += times
        for counts in (self._results, self._alarms, self._resets):
            for key in [key for key in counts if key[0] == labels]:
                del counts[key]
        silent = round(now - oldest.last)
        log.warning("drift.forgotten", replica=gone, silent_seconds=silent, cause=f"{self._most:g} replicas at most")
        return True

    def _seen_as(self, sample: Sample, row: Row, values: NDArray[np.float32], segments: tuple[str, ...]) -> Seen:
        return Seen(
            number=self.seen,
            time=moment(sample.time),
            id=sample.id,
            cluster=row.cluster,
            response=row.response,
            prompt=row.prompt,
            packed=row.packed,
            values=values,
            segments=segments,
        )

    def _told(self, replica: Replica, whose: Whose, seen: Seen) -> list[Event]:
        events = replica.observe(seen)
        for turn, alarm, number, _ in events:
            if turn is Turn.RAISED:
                self._alarms[whose, alarm.channel] += 1
                log.warning("drift.alarm", **_said(alarm, number))
            else:
                log.info("drift.released", **_said(alarm, number))
                self.resets(replica.name, "released")
        return events

    def _too_many(self, replica: str) -> None:
        if self._seldom.due("too many"):
            effect = "samples of further replicas are not compared"
            log.warning("drift.too_many_replicas", most=self._most, replica=replica[:100], effect=effect)

    def _unfit(self, sample: Sample) -> None:
        if self._seldom.due("unfit"):
            cause = "its embedding is missing, or holds NaN or infinity"
            log.warning("drift.unfit", id=sample.id[:100], cause=cause, effect="the sample is not compared")


def _said(alarm: Alarm, number: int) -> dict[str, Any]:
    """An alarm as its log line tells it."""
    return {
        "channel": alarm.channel,
        "replica": alarm.replica,
        "pages": alarm.pages,
        "sample": number,
        "since": alarm.since,
        "since_time": round(alarm.since_time, 3),
        "checks": ",".join(alarm.checks),
        "segment": alarm.segment,
        "side": alarm.side,
        "moved": ",".join(alarm.moved),
        "markers": "; ".join(alarm.markers),
    }
