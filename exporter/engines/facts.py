"""What an engine's own HTTP API says about it: its version, and its model where no metric names one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Thread

from palegreen.catalogue.engines import Engine, Fact
from palegreen.exporter.engines.fetch import Fetcher, FetchError

_KEPT = 60.0  # seconds; the model behind an address can change without the page failing in between
_ASKED_AGAIN = 5.0  # seconds, while the model is not known
_VERSION_KEPT = 600.0  # seconds; a server that does not tell its version logs a 404 at each question
_DEADLINE = 2.0  # seconds for one answer: the page is what matters


@dataclass(frozen=True, slots=True)
class Known:
    """Empty where the engine does not tell."""

    version: str = ""
    model: str = ""


class Facts:
    """Asks one server for the facts of the engines found there, and asks again now and then.

    Only the first time is waited for, since a series must not change its model label a moment after it appeared. Later
    answers come from a thread, and what was known stays known when the server does not say it again.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = replace(fetcher, deadline=min(fetcher.deadline, _DEADLINE))
        self._engines: tuple[Engine, ...] | None = None
        self._known = Known()
        self._due = 0.0
        self._asking: Thread | None = None

    def forget(self) -> None:
        """The server went away: what comes back may be another."""
        self._engines = None

    def of(self, engines: Sequence[Engine], model: str = "") -> Known:
        """Facts of the engines of one page; a `model` given is believed."""
        listed = tuple(engines)
        if self._engines is None or [e.engine for e in listed] != [e.engine for e in self._engines]:
            self._engines, self._known = listed, Known()
            self._ask(listed, model)
        elif time.monotonic() >= self._due and (self._asking is None or not self._asking.is_alive()):
            self._asking = Thread(target=self._ask, args=(listed, model), name="engine facts", daemon=True)
            self._asking.start()
        return self._known

    def _ask(self, engines: tuple[Engine, ...], model: str) -> None:
        before = self._known
        versions = [fact for engine in engines for fact in engine.facts.get("version", ()) if not before.version]
        nameless = (engine for engine in engines if not engine.identity.model and not model)
        models = [fact for engine in nameless for fact in engine.facts.get("model", ())]
        found = Known(self._first(versions) or before.version, model or self._first(models) or before.model)
        if self._engines is not None and self._known is before:  # else the server went away meanwhile
            self._known = found
        kept = (_KEPT if found.model else _ASKED_AGAIN) if models else _VERSION_KEPT
        self._due = time.monotonic() + kept

    def _first(self, facts: Iterable[Fact]) -> str:
        for fact in facts:
            try:
                value = json.loads(self._fetcher.get(fact.path).body)
                for key in fact.keys:
                    value = value[key]
            except (FetchError, ValueError, LookupError, TypeError, RecursionError):
                continue
            if isinstance(value, str):
                return value[:200]
        return ""
