"""What an engine's own HTTP API says about it: its version, and its model where no metric names one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from palegreen.catalogue.engines import Engine, Fact
from palegreen.exporter.engines.fetch import Fetcher, FetchError

_KEPT = 60.0  # seconds; the model behind an address can change without the page failing in between


@dataclass(frozen=True, slots=True)
class Known:
    """Empty where the engine does not tell."""

    version: str = ""
    model: str = ""


class Facts:
    """Asks one server for the facts of the engines found there, and asks again now and then."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._asked = float("-inf")
        self._of: list[str] = []
        self._known = Known()

    def forget(self) -> None:
        """The server went away: what comes back may be another."""
        self._asked = float("-inf")

    def of(self, engines: Sequence[Engine], model: str = "") -> Known:
        """Facts of the engines of one page, asked for at most once a minute; a `model` given is believed."""
        names = [engine.engine for engine in engines]
        if names != self._of or time.monotonic() - self._asked > _KEPT:
            version = self._first(fact for engine in engines for fact in engine.facts.get("version", ()))
            nameless = (engine for engine in engines if not engine.identity.model and not model)
            model = model or self._first(fact for engine in nameless for fact in engine.facts.get("model", ()))
            self._known, self._of, self._asked = Known(version, model), names, time.monotonic()
        return self._known

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
