"""What the evaluator says of the answers: counts from its metrics, and the answers themselves from its store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palegreen.demo.live import Samples, scrape, total
from palegreen.evaluators.store.query import Filter, Reader, Stored, StoreError
from palegreen.evaluators.store.render import excerpt, preview

_MOST = 5  # samples that are shown at once
_WORST = 3  # checks that are named
_QUESTION = 60  # columns
_ALARMS = ("drift.alarm", "drift.released")
_CHANNELS = {
    "response": "answers to such questions are not what they were",
    "check": "checks fail, or scores fall, more than they did",
    "prompt": "other questions are asked than were",
}
_TOLD = {"checks": "seen by", "markers": "changed about then", "moved": "moved most"}


@dataclass(slots=True)
class Quality:
    """Follows the evaluator whose metrics are at `url`, whose store is the file `store`, and which logs to `log`."""

    url: str
    store: Path
    log: Path | None = None
    _last: int = 0
    _read: int = 0
    _marked: float | None = None

    def line(self) -> str:
        """One summary line of what is scraped now, or why there is none."""
        try:
            return summary(scrape(self.url))
        except OSError as failure:
            return f"no answer from {self.url}: {failure}"

    def mark(self) -> None:
        """From now on alarms are told with the number of samples that were scored since."""
        try:
            self._marked = _watched(scrape(self.url))
        except OSError:
            self._marked = None

    def since(self) -> int | None:
        """How many samples were scored since `mark`; None where that cannot be said."""
        with contextlib.suppress(OSError):
            if self._marked is not None:
                return int(_watched(scrape(self.url)) - self._marked)
        return None

    def news(self) -> list[str]:
        """What is new: samples, then alarms."""
        return [*self.samples(), *self.alarms()]

    def alarms(self) -> list[str]:
        """A line for each alarm that was raised or released since the last call."""
        if self.log is None:
            return []
        with self.log.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        told = [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [self._alarm(entry) for entry in told if entry.get("event") in _ALARMS]

    def _alarm(self, entry: Mapping[str, Any]) -> str:
        line = alarm(entry)
        if entry["event"] == "drift.alarm" and self.since() is not None:
            line += f", {self.since()} samples after the fault"
        return line

    def samples(self) -> list[str]:
        """A line for each of the newest samples that came since the last call, at most five, the oldest first."""
        if not self.store.exists():
            return []  # nothing was scored so far
        try:
            with Reader(self.store) as reader:
                newest = reader.newest(Filter(), _MOST)
        except StoreError as failure:
            return [f"no samples: {failure}"]
        new = sorted((stored for stored in newest if stored.seq > self._last), key=lambda stored: stored.seq)
        self._last = max([self._last, *(stored.seq for stored in new)])
        return [described(stored) for stored in new]


def alarm(entry: Mapping[str, Any]) -> str:
    """What the evaluator logged of an alarm, as a line."""
    what = _CHANNELS.get(entry["channel"], entry["channel"])
    if entry["event"] == "drift.released":
        return f"over     {what}: as usual again"
    found = [f"began {entry['sample'] - entry['since'] + 1} answers ago"]
    found += [f"{label}: {entry[key]}" for key, label in _TOLD.items() if entry.get(key)]
    return f"{'ALARM ' if entry['pages'] else 'notice'}   {what}; {'; '.join(found)}"


def _watched(samples: Samples) -> float:
    return total(samples, "palegreen_quality_samples_total")


def summary(samples: Samples) -> str:
    """Samples by result, the checks that fail most, the lag of the last sample, and what is not as it should be."""
    return ", ".join(_parts(samples))


def _parts(samples: Samples) -> Iterator[str]:
    name = "palegreen_quality_samples_total"
    yield f"{total(samples, name):.0f} scored"
    yield f"{total(samples, name, result='pass'):.0f} passed"
    failing = {
        labels["check"]: value
        for labels, value in samples.get("palegreen_quality_checks_total", ())
        if labels["result"] == "fail" and value
    }
    worst = sorted(failing.items(), key=lambda item: -item[1])[:_WORST]
    named = f" ({', '.join(f'{check} {value:.0f}' for check, value in worst)})" if worst else ""
    yield f"{total(samples, name, result='fail'):.0f} failed{named}"
    if unscored := total(samples, name, result="unscored"):
        yield f"{unscored:.0f} without text"
    canaries = {
        result: total(samples, "palegreen_canary_runs_total", result=result) for result in ("pass", "fail", "error")
    }
    if any(canaries.values()):
        yield f"canaries {' '.join(f'{times:.0f} {result}' for result, times in canaries.items() if times)}"
    scores = sorted((labels["channel"], value) for labels, value in samples.get("palegreen_drift_score_ratio", ()))
    if scores:
        yield f"drift {' '.join(f'{channel} {value:.2f}' for channel, value in scores)}"
    if lag := total(samples, "palegreen_evaluator_lag_seconds"):
        yield f"{lag:.1f} s behind"
    if dropped := total(samples, "palegreen_tap_dropped_total"):
        yield f"{dropped:.0f} dropped"
    for labels, up in samples.get("palegreen_evaluator_process_up", ()):
        if not up:
            yield f"the {labels['process']} process is down"


def described(stored: Stored) -> str:
    """Verdict, question, answer, and which checks failed and why."""
    asked = stored.record.get("messages") or ()  # an error that is kept beyond the rate has none
    question = next((m["content"] for m in reversed(asked) if m["role"] == "user"), "")
    scores = stored.record.get("scores", {})
    reasons = [f"{name}: {(scores.get(name) or {}).get('why', 'failed')}" for name in stored.failed]
    line = f"{stored.result:8} {excerpt(question, _QUESTION)} -> {preview(stored)}"
    return f"{line}  [{'; '.join(reasons)}]" if reasons else line
