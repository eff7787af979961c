"""An index that is asked by a Python function of one's own."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from palegreen.evaluators.probes.retrieval_search import Found, Question, SearchError, found
from palegreen.runtime.yamlfile import ConfigError

_ARGUMENTS = ("text", "vector", "k", "exact")


class CallableIndex:
    """Calls `function(text=..., vector=..., k=..., exact=...)`, one call at a time, and waits for it that many seconds.

    Python can end no thread: a call that is late goes on, its answer is thrown away, and no other is made before it
    has returned.
    """

    def __init__(self, function: Callable[..., Any], timeout: float, exact_timeout: float) -> None:
        self._function = function
        self._timeouts = {False: timeout, True: exact_timeout}
        self._running: Thread | None = None

    def __call__(self, question: Question, k: int, exact: bool) -> Found:
        """Call once. Raises SearchError."""
        if self._running is not None and self._running.is_alive():
            raise SearchError("timeout", "an earlier call has not returned yet")
        answers: list[Any] = []
        failures: list[BaseException] = []

        def call() -> None:
            try:
                answers.append(self._function(text=question.text, vector=question.vector, k=k, exact=exact))
            except BaseException as failure:  # noqa: BLE001 - whatever somebody's function raises, SystemExit too
                failures.append(failure)

        self._running = Thread(target=call, name="retrieval", daemon=True)
        self._running.start()
        self._running.join(self._timeouts[exact])
        if failures:
            raise SearchError("failed", _where(failures[0]))
        if not answers:
            raise SearchError("timeout", f"no answer within {self._timeouts[exact]:g} s")
        answer = answers[0]
        if isinstance(answer, Mapping):
            return found(answer.get("ids"), answer.get("scores"), answer.get("vector"))
        return found(answer)


def load(name: str, origin: str) -> Callable[..., Any]:
    """The function `MODULE:FUNCTION`. Raises ConfigError, one line that begins with `origin`."""
    module, _, attribute = name.partition(":")
    try:
        loaded = importlib.import_module(module)
    except BaseException as failure:
        if isinstance(failure, KeyboardInterrupt):
            raise
        hint = f": {failure}" if isinstance(failure, ModuleNotFoundError) else f" ({_where(failure)})"
        raise ConfigError(f"{origin}: {name}: the module cannot be imported{hint}") from None
    function: Callable[..., Any] | None = getattr(loaded, attribute, None)
    if not callable(function):
        raise ConfigError(f"{origin}: {name}: {module} has no function {attribute}")
    try:
        inspect.signature(function).bind(**dict.fromkeys(_ARGUMENTS))
    except TypeError as refused:
        allowed = ", ".join(_ARGUMENTS)
        raise ConfigError(f"{origin}: {name}: {refused}; allowed: a function of {allowed}, by name") from None
    except ValueError:  # built in: it does not tell its parameters
        pass
    return function


def _where(failure: BaseException) -> str:
    """Type and place; the message may quote the query."""
    frame = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__} in {Path(frame.filename).name}:{frame.lineno}"
