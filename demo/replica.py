"""One replica of the demo: an engine, the evaluator beside it, and its share of the traffic."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from palegreen.demo.engine import LlamaServer, default_model
from palegreen.demo.evaluator import Evaluator
from palegreen.demo.faults import NONE, Fault
from palegreen.demo.gpu import Driver
from palegreen.demo.quality import Quality
from palegreen.demo.questions import MAX_TOKENS, TEMPERATURE, questions, system_prompt
from palegreen.demo.traffic import Prompt, Traffic
from palegreen.demo.weights import rounded

ENGINE_OPTIONS = ("--threads-http", "32")
"""So many that its metrics answer while requests wait for a slot."""
NO_DRIVER = Driver()
_QUESTIONS = 5_000


class Asked(Sequence[Prompt]):
    """Questions as requests, made when they are asked: `system` may be changed meanwhile."""

    def __init__(self, seed: int) -> None:
        self._questions = questions(seed, _QUESTIONS)
        self.system: str | None = system_prompt()

    def __len__(self) -> int:
        return len(self._questions)

    @overload
    def __getitem__(self, at: int) -> Prompt: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, at: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(at, slice):
            return [self._request(number) for number in range(*at.indices(len(self)))]
        return self._request(at)

    def __iter__(self) -> Iterator[Prompt]:
        return (self._request(number) for number in range(len(self)))

    def _request(self, number: int) -> Mapping[str, Any]:
        question = self._questions[number]
        request: dict[str, Any] = {"messages": question.messages(self.system), "temperature": TEMPERATURE}
        if question.contexts:
            request["metadata"] = {"contexts": question.contexts[0]}  # tells the evaluator what was retrieved
        return request


class Replica:
    """`engine` is None where the engine is one of the user's own: what needs it started again is then refused."""

    def __init__(
        self,
        number: int,
        engine: LlamaServer | None,
        proxy: str,
        quality: Quality,
        rate: float,
        evaluator: Evaluator | None = None,
        driver: Driver = NO_DRIVER,
    ) -> None:
        self.number = number
        self.quality = quality
        self.fault = NONE
        self._engine, self._evaluator, self._driver = engine, evaluator, driver
        self._asked = Asked(seed=1_000 + number)
        self._proxy = proxy
        self._burst: Traffic | None = None
        self.traffic = Traffic(
            proxy, requests_per_second=rate, concurrency=2, max_tokens=MAX_TOKENS, prompts=self._asked
        )

    def suffer(self, fault: Fault, folder: Path) -> str:
        """Bring a fault about, instead of the one that there is; why not, if it cannot be.

        Raises EngineError and DemoError where something does not start again.
        """
        if refusal := self._refusal(fault):
            return refusal
        was, self.fault = self.fault, fault
        self.quality.mark()
        if self._burst is not None:
            self._burst.stop()
            self._burst = None
        if was.gpu or fault.gpu:
            self._driver.change(fault.gpu)
        if was.evaluator and self._evaluator is not None:
            self._evaluator.again()
        if self._engine is not None:
            self._change(self._engine, was, fault, folder)
        self._asked.system = system_prompt() if fault.system else None
        if fault.evaluator and self._evaluator is not None:
            self._evaluator.kill()
        if fault.burst:
            self._burst = Traffic(
                self._proxy, concurrency=fault.burst, max_tokens=MAX_TOKENS, prompts=self._asked
            ).start()
        return ""

    def forget(self) -> None:
        """Let the evaluator's detectors begin anew."""
        if self._evaluator is not None:
            self._evaluator.forget()

    def stop(self) -> None:
        """End the traffic of a fault."""
        if self._burst is not None:
            self._burst.stop()

    def _refusal(self, fault: Fault) -> str:
        if self._engine is None and (fault.of_engine or self.fault.of_engine):
            return "the engine is your own and is not started again; allowed: faults that need no restart"
        if fault.gpu == "lost" and not self._driver.simulated:
            return "there is no simulated GPU that could be lost"
        return ""

    def _change(self, engine: LlamaServer, was: Fault, fault: Fault, folder: Path) -> None:
        if was.restarts or fault.restarts or was.engine == "killed":
            weights = self._weights(fault, folder)
            engine.restart(model=weights, extra=(*ENGINE_OPTIONS, *fault.options))
        elif was.engine == "stopped":
            engine.signal(signal.SIGCONT)
        if fault.engine:
            engine.signal(signal.SIGKILL if fault.engine == "killed" else signal.SIGSTOP)

    def _weights(self, fault: Fault, folder: Path) -> Path | None:
        source = default_model()
        if fault.bits is None or source is None:
            return source
        made = folder / f"{fault.bits}bit" / source.name  # under the same name, in another folder
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            rounded(source, fault.bits, made)
        return made
