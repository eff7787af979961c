"""Which checks there are, what the configuration says of them, and how they are run."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

import structlog
from pydantic import BaseModel, ValidationError

from palegreen.evaluators.checks.outcome import Check, Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.yamlfile import ConfigError, describe

GROUP = "palegreen.checks"
BUILT_IN = (
    "error",
    "content_filter",
    "truncated",
    "empty",
    "length",
    "served_model",
    "logprob",
    "reasoning",
    "template_leak",
    "mojibake",
    "repetition",
    "gibberish",
    "script",
    "language",
    "refusal",
    "json_valid",
    "json_schema",
    "tool_calls",
    "system_prompt_leak",
    "ungrounded_numbers",
    "ungrounded_names",
    "empty_context",
    "context_overlap",
    "prompt_overlap",
    "query_context_cosine",
    "context_cosine",
    "prompt_cosine",
)
"""Names of the built-in checks, in the order in which they run; each is the module of that name."""

_LOG_SECONDS = 60.0

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")

log = structlog.get_logger()


class Checks:
    """The checks that are switched on, with their settings. One that raises is skipped, counted and logged.

    `errors` counts by name how often a check raised, or returned what is no outcome. `clock` gives seconds.
    """

    def __init__(self, checks: Mapping[str, Check], clock: Callable[[], float] = time.monotonic) -> None:
        self.names = tuple(checks)
        self.errors: Counter[str] = Counter()
        self._checks = dict(checks)
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # when, and how many errors there were by then

    def run(self, view: View) -> dict[str, Outcome | None]:
        """What every check says of a sample; None is skipped. Never raises. There is no limit on a check's time."""
        outcomes: dict[str, Outcome | None] = {}
        for name, check in self._checks.items():
            try:
                outcome = check(view)
                if outcome is not None:
                    _lawful(outcome)
                outcomes[name] = outcome
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  # one check never stops the others; Rust's panics are here
                outcomes[name] = None
                self._failed(name, error)
        return outcomes

    def _failed(self, name: str, error: BaseException) -> None:
        """Count it, and log it once a minute; its message may quote the text, so only its type and place are told."""
        self.errors[name] += 1
        now = self._clock()
        before, told = self._logged.get(name, (float("-inf"), 0))
        if now - before < _LOG_SECONDS:
            return
        self._logged[name] = now, self.errors[name]
        frame = traceback.extract_tb(error.__traceback__)[-1]
        log.warning(
            "a check raised and is skipped",
            check=name,
            error=type(error).__name__,
            where=f"{Path(frame.filename).name}:{frame.lineno}",
            times=self.errors[name] - told,
        )


def _lawful(outcome: Outcome) -> None:
    if not isinstance(outcome, Outcome):
        raise TypeError("a check returned something other than an Outcome or None")
    if outcome.score is not None and not 0.0 <= outcome.score <= 1.0:
        raise ValueError("a check returned a score outside [0, 1]")


def build(settings: Mapping[str, Mapping[str, Any]], clock: Callable[[], float] = time.monotonic) -> Checks:
    """The checks as configured: `settings` by name, `enabled: false` in them switches a check off.

    Raises ConfigError, one line: an unknown check, a bad setting, an own check that cannot be loaded.
    """
    own = {entry.name: entry for entry in entry_points(group=GROUP)}
    names = (*BUILT_IN, *sorted(own))
    for name in settings:
        if name not in names:
            raise ConfigError(f"checks.{name}: unknown check; allowed: {', '.join(sorted(names))}")
    checks = {}
    for name in names:
        given = dict(settings.get(name) or {})
        if _enabled(name, given.pop("enabled", True)):
            checks[name] = _configured(name, _load(name, own), given)
    return Checks(checks, clock)


def _enabled(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"checks.{name}.enabled: got {value!r}; allowed: true, false")
    return value


def _load(name: str, own: Mapping[str, EntryPoint]) -> Any:
    """The module of a built-in check, or what an entry point names."""
    entry = own.get(name)
    if entry is None:
        return import_module(f"palegreen.evaluators.checks.{name}")
    origin = f"checks.{name}: the check {entry.value}"
    if name in BUILT_IN or not _NAME.fullmatch(name):
        raise ConfigError(f"{origin} cannot have this name; allowed: a new one, lower case, with underscores")
    try:
        return entry.load()
    except Exception as error:  # whatever somebody's module raises when it is imported
        raise ConfigError(f"{origin} cannot be loaded: {type(error).__name__}; allowed: enabled: false") from error


def _configured(name: str, loaded: Any, given: Mapping[str, Any]) -> Check:
    """The function of one view: `check` of a module or object, or a callable itself; with its `Settings`, if any."""
    check = getattr(loaded, "check", loaded)
    model: type[BaseModel] | None = getattr(loaded, "Settings", None)
    if not callable(check):
        raise ConfigError(f"checks.{name}: is no check; allowed: a callable, or a module or object with `check`")
    if model is None:
        if given:
            raise ConfigError(f"checks.{name}.{next(iter(given))}: unknown key; allowed: enabled")
        return cast("Check", check)
    try:
        return partial(check, settings=model.model_validate(given))
    except ValidationError as refused:
        first = refused.errors()[0]
        key = ".".join(["checks", name, *map(str, first["loc"])])
        raise ConfigError(f"{key}: {describe(model, first)}") from None
