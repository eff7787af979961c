"""What shows that an engine works for others while it does not answer us: its own counters of tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from threading import Event

from palegreen.catalogue.engines import engines
from palegreen.evaluators.probes.client import AskError, Replica

_TOKENS = ("palegreen_engine_generation_tokens_total", "palegreen_engine_prompt_tokens_total")
_BESIDE = frozenset({"llamacpp:n_decode_total"})  # its token counters move only when an answer is over
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^\n]*\})?[ \t]+([0-9.eE+]+)")
_TIMEOUT = 5.0


def counters(replica: Replica, stopped: Event, timeout: float = _TIMEOUT) -> Mapping[str, float] | None:
    """Every counter of tokens on the engine's metrics page; None if it has none or does not answer."""
    try:
        answer = replica.ask("/metrics", timeout=timeout, stopped=stopped)
    except AskError:
        return None
    found: dict[str, float] = {}
    wanted = _names()
    for line in answer.body.decode("utf-8", "replace").splitlines():
        if (match := _LINE.match(line)) and match[1] in wanted:
            series = line[: match.end(1)] if match.end(1) == match.start(2) else line[: match.start(2)].strip()
            try:
                found[series] = float(match[2])
            except ValueError:
                continue
    return found or None


def moved(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> bool:
    """Whether any counter rose."""
    return any(value > (before or {}).get(series, value) for series, value in (after or {}).items())


@cache
def _names() -> frozenset[str]:
    """Native names of the counters of tokens, of every engine that is known."""
    rules = [engine.metrics[name] for engine in engines() for name in _TOKENS if name in engine.metrics]
    return _BESIDE | {rule.source for each in rules for rules_ in each.alternatives() for rule in rules_}
