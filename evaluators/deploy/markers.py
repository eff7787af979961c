"""Change markers: what tells, of a sample, that another state of the model's deployment answered it.

Each is a hash, kept by replica and by what it hangs on (its scope). Several values of a scope may be in use at once,
such as the backends behind one name or the prompts of one route: a change is a value that was not among the last
`WINDOW` samples of its scope, never the alternation between those that were.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
import structlog

from palegreen.evaluators.ledger import failed
from palegreen.evaluators.sample import Sample

log = structlog.get_logger()

WINDOW = 500
"""Samples of a scope after which a value that has not come again is forgotten; its return is a change."""
VARIES = 8
"""More new values of a scope in the window than this say nothing: it varies by itself, as with a name in a prompt."""
NEAR = 1800.0
"""Seconds before an alarm's beginning in which a change is near it."""
_CONFIRMED = {"system_fingerprint": 1, "served_model": 1, "prompt": 5}  # times that a new value must be seen
_SCOPES = 256
_VALUES = 16  # of a scope
_RECENT = 100
_CONSTRUCTIONS = 256  # prompts whose hash is remembered
_DIGITS = str.maketrans("", "", "0123456789")
# What differs from day to day in a prompt that nobody has changed; the short forms stand in the long ones.
_CALENDAR = (
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "January", "February", "March"),
    *("April", "June", "July", "August", "September", "October", "November", "December"),
    *("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep"),
    *("Oct", "Nov", "Dec"),
)


class Change(NamedTuple):
    """A marker that moved, at the time of the sample that shows it; `what` is hashes alone."""

    at: float
    marker: str
    model: str
    endpoint: str
    replica: str
    what: str


@dataclass(slots=True)
class _Value:
    first: int  # of the samples of its scope
    last: int
    times: int
    told: bool


@dataclass(slots=True)
class _Scope:
    seen: int = 0
    values: dict[str, _Value] = field(default_factory=dict)


class Markers:
    """Markers of all replicas whose samples one scorer sees; bounded.

    Args:
        known: `state()` of an earlier one.
        clock: epoch seconds.
    """

    def __init__(self, known: Mapping[str, Any] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._scopes: dict[str, _Scope] = {}  # the one used last at the end
        self._recent: deque[tuple[float, str, str]] = deque(maxlen=_RECENT)  # time, marker, replica
        self._varying: set[str] = set()
        self._constructions: dict[str, str] = {}  # hash of a prompt and tools as they are: that of what matters
        self._untold: list[Change] = []
        self._deployed: float | None = None
        with suppress(AttributeError, LookupError, TypeError, ValueError):  # of another version: it begins anew
            self._restore(known or {})

    @property
    def deployed(self) -> float | None:
        """When the last deploy was declared, epoch seconds."""
        return self._deployed

    def observe(self, sample: Sample) -> list[Change]:
        """What moved with this sample. Only responses sampled at the rate count, as for every statistic."""
        if sample.sampled != "rate" or failed(sample):
            return []
        now = self._clock()
        at = sample.time if 0 < sample.time <= now else now
        changes = []
        for marker, scope, value in self._sightings(sample):
            what = self._moved(marker, _digest(sample.replica, marker, scope), value)
            if what:
                changes.append(Change(at, marker, sample.model, sample.endpoint, sample.replica, what))
        self._recent += [(change.at, change.marker, change.replica) for change in changes]
        self._untold += changes
        return changes

    def deploy(self, at: float, cause: str, replica: str) -> None:
        """A deploy was declared: of what samples here do not show, too."""
        self._recent.append((at, cause, replica))
        self._deployed = max(at, self._deployed or 0.0)

    def near(self, replica: str, since: float) -> list[str]:
        """Markers of a replica that moved not long before `since` (epoch seconds) or after it, in order of time."""
        moved = sorted(each for each in self._recent if each[0] >= since - NEAR and each[2] in ("", replica))
        return list(dict.fromkeys(marker for _, marker, _ in moved))

    def untold(self) -> list[Change]:
        """Changes since this was asked last."""
        untold, self._untold = self._untold, []
        return untold

    def state(self) -> dict[str, Any]:
        """What outlives this process: JSON values, hashes and counts."""
        scopes = {
            key: [scope.seen, {value: [v.first, v.last, v.times, v.told] for value, v in scope.values.items()}]
            for key, scope in self._scopes.items()
        }
        return {"scopes": scopes, "recent": [list(each) for each in self._recent]}

    def _restore(self, known: Mapping[str, Any]) -> None:
        scopes = {
            str(key): _Scope(int(seen), {str(value): _value(*numbers) for value, numbers in values.items()})
            for key, (seen, values) in known.get("scopes", {}).items()
        }
        recent = [(float(at), str(marker), str(replica)) for at, marker, replica in known.get("recent", ())]
        self._scopes = scopes
        self._recent += recent

    def _sightings(self, sample: Sample) -> Iterator[tuple[str, str, str]]:
        """Marker, scope and value of all that a sample shows."""
        if sample.system_fingerprint:
            yield "system_fingerprint", sample.model, _digest(sample.system_fingerprint)
        if sample.model:
            yield "served_model", f"{sample.endpoint}\n{sample.requested_model}", _digest(sample.model)
        if sample.messages and not sample.truncated:
            yield "prompt", f"{sample.endpoint}\n{sample.route}", self._constructed(sample.system, _plain(sample.tools))

    def _constructed(self, prompt: str, tools: bytes) -> str:
        """A hash of prompt and tools that stays the same from day to day."""
        exact = _hash(prompt.encode(errors="replace") + b"\0" + tools)
        known = self._constructions.get(exact)
        if known is None:
            if len(self._constructions) >= _CONSTRUCTIONS:
                self._constructions.clear()
            known = _hash(_undated(prompt).encode(errors="replace") + b"\0" + tools)
            self._constructions[exact] = known
        return known

    def _moved(self, marker: str, key: str, value: str) -> str:
        """From what to what a marker moved, empty if it did not."""
        scope = self._scopes[key] = self._scopes.pop(key, _Scope())
        if len(self._scopes) > _SCOPES:
            del self._scopes[next(iter(self._scopes))]
        scope.seen += 1
        latest = max(scope.values, key=lambda each: scope.values[each].last, default="")
        seen = scope.values.get(value)
        if seen is None or scope.seen - seen.last > WINDOW:
            seen = scope.values[value] = _Value(scope.seen, scope.seen, 0, told=not scope.values)
            if len(scope.values) > _VALUES:
                del scope.values[min(scope.values, key=lambda each: scope.values[each].last)]
        seen.last, seen.times = scope.seen, seen.times + 1
        if seen.told or seen.times < _CONFIRMED[marker]:
            return ""
        seen.told = True
        return "" if self._varies(marker, key, scope) else f"{latest} -> {value}"

    def _varies(self, marker: str, key: str, scope: _Scope) -> bool:
        fresh = sum(value.first > max(1, scope.seen - WINDOW) for value in scope.values.values())
        if fresh <= VARIES:
            self._varying.discard(key)
            return False
        if key not in self._varying:
            self._varying.add(key)
            log.info("marker.varies", marker=marker, scope=key, effect="it declares no deploy while it does")
        return True


def _value(first: Any, last: Any, times: Any, told: Any) -> _Value:
    return _Value(int(first), int(last), int(times), bool(told))


def _undated(prompt: str) -> str:
    """A prompt without digits and without names of days and months."""
    prompt = prompt.translate(_DIGITS)
    for name in _CALENDAR:
        prompt = prompt.replace(name, "")
    return prompt


def _plain(tools: list[dict[str, Any]]) -> bytes:
    try:
        return orjson.dumps(tools, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # half a surrogate pair, an integer beyond 64 bits
        return json.dumps(tools, sort_keys=True, default=str).encode()


def _digest(*parts: str) -> str:
    """A short hash of texts."""
    return _hash("\0".join(parts).encode(errors="replace"))


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]
