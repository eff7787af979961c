"""Who is told: a receiver of Alertmanager's webhooks that keeps each incident, and its text as on a phone."""

from __future__ import annotations

import json
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_LARGEST = 8 << 20
_WIDTH = 100
_MOST = 3  # alerts of one message that are written out
_CALLED = {"critical": "PAGE", "warning": "TICKET"}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a message: its labels, and what a person reads."""

    labels: Mapping[str, str]
    summary: str
    description: str
    runbook: str
    firing: bool

    @property
    def cause(self) -> str:
        """The label cause."""
        return self.labels.get("cause", "")


@dataclass(frozen=True, slots=True)
class Incident:
    """What was told to one receiver from the first message about a group of alerts to that of its end. Each is one
    page, as in PagerDuty, where later messages of the group are added to it.

    `opened` and `closed` are of the pager's clock.
    """

    receiver: str
    key: str
    opened: float
    alerts: tuple[Alert, ...]
    """Those that fired, in the order in which they were told; those of the first message first."""
    closed: float | None = None
    messages: int = 1

    @property
    def severity(self) -> str:
        """critical or warning."""
        return self.alerts[0].labels.get("severity", "") if self.alerts else ""

    @property
    def owner(self) -> str:
        """Who is to act: platform or model."""
        return self.alerts[0].labels.get("owner", "") if self.alerts else ""

    @property
    def verdict(self) -> str:
        """The label verdict."""
        return self.alerts[0].labels.get("verdict", "") if self.alerts else ""

    def of(self, name: str) -> tuple[str, ...]:
        """Values of a label among the alerts, the first first; without it absent."""
        return tuple(dict.fromkeys(alert.labels[name] for alert in self.alerts if alert.labels.get(name)))


@dataclass(slots=True)
class Incidents:
    """Turns messages into incidents. `numbers` says which replica of the demo an instance_id is."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    all: list[Incident] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _said: list[str] = field(default_factory=list)

    def take(self, message: Mapping[str, Any]) -> None:
        """Take what Alertmanager posted. Raises KeyError and TypeError if it is no such thing."""
        alerts = tuple(_alert(entry) for entry in message["alerts"])
        receiver, key, now = str(message["receiver"]), str(message["groupKey"]), self.clock()
        firing = tuple(alert for alert in alerts if alert.firing)
        with self._lock:
            at = next(
                (n for n, each in enumerate(self.all) if _open(each) and (each.receiver, each.key) == (receiver, key)),
                -1,
            )
            before = self.all[at] if at >= 0 else None
            if before is None and not firing:
                return
            if before is None:
                self.all.append(Incident(receiver, key, now, firing))
                self._said += list(phone(firing, self.numbers))
                return
            known = [alert.labels for alert in before.alerts]
            more = tuple(alert for alert in firing if alert.labels not in known)
            closed = None if firing else now
            self.all[at] = replace(before, closed=closed, messages=before.messages + 1, alerts=before.alerts + more)
            self._said += list(_update(before, firing, now, self.numbers))

    def told(self) -> list[Incident]:
        """All so far, in the order in which they were opened."""
        with self._lock:
            return list(self.all)

    def news(self) -> list[str]:
        """What was said since the last call, as lines."""
        with self._lock:
            said, self._said = self._said, []
        return said


class Pager:
    """Listens on a free port of 127.0.0.1 while the block runs; `url` is where webhooks are posted."""

    def __init__(self, incidents: Incidents) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                try:
                    incidents.take(json.loads(self.rfile.read(min(length, _LARGEST))))
                except (ValueError, KeyError, TypeError):
                    self.send_error(400, "not a message of Alertmanager")
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the base class has it
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="pager", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def phone(alerts: Sequence[Alert], numbers: Mapping[str, int]) -> Iterator[str]:
    """A message as a person reads it: whose it is, which replica, what is wrong; numbers, cause, next step, runbook."""
    first = alerts[0].labels
    called = _CALLED.get(first.get("severity", ""), "NOTE")
    yield f"{called:8} to {first.get('owner', '')}: {_named(alerts[0], numbers)}"
    for alert in alerts[1:_MOST]:
        yield f"{'':9}and {_named(alert, numbers)}"
    if len(alerts) > _MOST:
        yield f"{'':9}and {len(alerts) - _MOST} more"
    for text in (alerts[0].description, alerts[0].runbook):
        yield from (
            f"{'':9}{line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
        )


def _update(before: Incident, firing: Sequence[Alert], now: float, numbers: Mapping[str, int]) -> Iterator[str]:
    if not firing:
        yield f"RESOLVED to {before.owner}: {_named(before.alerts[0], numbers)} (after {now - before.opened:.0f} s)"
        return
    known = {alert.cause for alert in before.alerts}
    for alert in firing:
        if alert.cause not in known:
            yield f"UPDATE   to {before.owner}: {_named(alert, numbers)}"


def _named(alert: Alert, numbers: Mapping[str, int]) -> str:
    number = numbers.get(alert.labels.get("instance_id", ""))
    which = f", replica {number}" if number is not None else ""
    return f"{alert.summary} [{alert.cause}{which}]"


def _alert(entry: Mapping[str, Any]) -> Alert:
    said = entry.get("annotations") or {}
    return Alert(
        labels={str(name): str(value) for name, value in entry["labels"].items()},
        summary=str(said.get("summary", "")),
        description=str(said.get("description", "")),
        runbook=str(said.get("runbook_url", "")),
        firing=entry["status"] == "firing",
    )


def _open(incident: Incident) -> bool:
    return incident.closed is None
