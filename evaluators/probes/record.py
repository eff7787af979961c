"""Makes the reference: each question several times at temperature 0, and several times at the reference's temperature.

All answers to a question but the first are asked for at once, so that the engine's batches differ as they do in
service: the spread that is recorded is the one that canaries will see.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import NamedTuple

from palegreen.evaluators.baseline.progress import Bar
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import AskError
from palegreen.evaluators.probes.prompts import BUILT_IN, Prompt, prompts
from palegreen.evaluators.probes.reference import FORMAT, MOST_BYTES, Case, Recorded, Reference, save, writable

_AT_ONCE = 4


class RecordError(Exception):
    """The engine does not answer as it must; one line."""


class Plan(NamedTuple):
    """How often each question is put: `repeats` at temperature 0 (at least 2), `sampled` at the set's temperature.

    `timeout`: seconds of one answer.
    """

    repeats: int
    sampled: int
    model: str
    timeout: float = 60.0

    @property
    def answers(self) -> int:
        """To each question."""
        return self.repeats + self.sampled


def record(chat: Chat, source: str, out: Path, plan: Plan, *, force: bool, created: float, bar: Bar) -> Reference:
    """Ask, and write the reference to `out`. A question of the built-in set that the engine refuses is left out.

    Raises:
        ConfigError: the questions cannot be read, or the file not written; one line.
        RecordError: one line.
    """
    asked = prompts(source)
    writable(out, force=force)
    model = plan.model
    if not model:
        with bar(f"asking {chat.replica.url} for its model", 0):
            model = _first_model(chat, plan.timeout)
    cases: list[Case] = []
    left_out: dict[str, str] = {}
    answered, size = "", 0
    with bar("asking", len(asked.prompts) * plan.answers) as tell:
        for prompt in asked.prompts:
            try:
                case, answered = _case(chat, prompt, asked.temperature, plan, model, tell)
            except AskError as failure:
                if source != BUILT_IN or not 400 <= failure.status < 500 or failure.reason == "busy":
                    raise RecordError(f"{chat.replica.url}: prompt {prompt.name}: {failure}") from None
                left_out[prompt.name] = str(failure)
                tell(plan.answers)
            else:
                cases.append(case)
                size += len(case.model_dump_json())
                if size > MOST_BYTES:
                    raise RecordError(
                        f"{chat.replica.url}: prompt {prompt.name}: the answers so far are {size >> 20} MiB; allowed: "
                        f"{MOST_BYTES >> 20}; does the engine heed max_tokens ({prompt.max_tokens} here)?"
                    )
    if not cases:
        name, why = next(iter(left_out.items()))
        raise RecordError(f"{chat.replica.url}: it refuses all prompts; {name}: {why}")
    reference = Reference(
        format=FORMAT,
        created=created,
        evaluator_version=version("palegreen"),
        model=model,
        served=answered,
        temperature=asked.temperature,
        left_out=left_out,
        cases=cases,
    )
    return save(out, reference, force=force)


def _first_model(chat: Chat, timeout: float) -> str:
    try:
        found = chat.models(timeout=timeout, stopped=Event())
    except AskError as failure:
        raise RecordError(f"{chat.replica.url}/v1/models: {failure}; give --model, if it is an engine") from None
    if len(found) != 1:
        raise RecordError(
            f"{chat.replica.url}: it serves {', '.join(found) or 'nothing'}; give --model with one of them"
        )
    return found[0]


def _case(
    chat: Chat, prompt: Prompt, temperature: float, plan: Plan, model: str, tell: Callable[[int], None]
) -> tuple[Case, str]:
    """A question with its answers, and the name under which the engine gave them. Raises AskError."""
    stopped = Event()

    def once(at: float) -> tuple[Recorded, str]:
        said = chat.ask(prompt.request(at) | {"model": model}, timeout=plan.timeout, stopped=stopped)
        return Recorded.of(said), said.model

    first, answered = once(0.0)  # alone, so that what the engine refuses is learned once
    tell(1)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = [pool.submit(once, at) for at in [0.0] * (plan.repeats - 1) + [temperature] * plan.sampled]
        try:
            for done in as_completed(asked):
                done.result()
                tell(1)
        finally:
            stopped.set()  # or a failure would be told only after all others that hang
    rest = [each.result()[0] for each in asked]
    greedy, sampled = [first, *rest[: plan.repeats - 1]], rest[plan.repeats - 1 :]
    if not any(answer.text for answer in greedy):
        raise AskError("malformed", "every answer is empty")
    return Case(prompt=prompt, greedy=greedy, sampled=sampled), answered
