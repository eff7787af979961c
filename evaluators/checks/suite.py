"""The suite that every check passes, one's own included: what must fail, pass and be skipped, and what always holds.

for case in suite.read(Path("tests/brand_voice.yaml")):
    suite.prove("brand_voice", case)
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.sample import Message, Sample
from palegreen.runtime.settings import Section


class Case(Section):
    """One case of a file: a list of mappings with these keys.

    `sample` has the fields of a Sample, and `prompt` and `system` for short; a text may be `{text, times}`.
    `expect` is fail, pass, skipped, or score: a score alone. `why` is a sentence that says why so.
    """

    why: str
    expect: str
    sample: dict[str, Any]
    settings: dict[str, Any] = Field(default_factory=dict)
    baseline: dict[str, Any] = Field(default_factory=dict)
    vectors: dict[str, list[float]] = Field(default_factory=dict)
    score: tuple[float, float] | None = None

    def view(self) -> View:
        """The sample as the checks see it."""
        fields = {name: _text(value) for name, value in self.sample.items()}
        messages: list[Message] = list(fields.pop("messages", []))
        for role, name in (("user", "prompt"), ("system", "system")):
            if name in fields:
                messages.insert(0, {"role": role, "content": fields.pop(name)})
        vectors = {name: np.array(values, np.float32) for name, values in self.vectors.items()}
        return View(Sample(messages=messages, **fields), vectors, self.baseline)


def read(path: Path) -> Iterator[Case]:
    """The cases of a file of YAML."""
    for case in yaml.safe_load(path.read_text(encoding="utf-8")):
        yield Case.model_validate(case)


def prove(name: str, case: Case) -> None:
    """Run a check on a case; raises AssertionError if it says anything else, or breaks a rule."""
    outcome = lawful(name, case.view(), case.settings)
    said = "score" if outcome and outcome.result == "skipped" and outcome.score is not None else None
    said = said or (outcome.result if outcome else "skipped")
    _hold(said == case.expect, f"{name} says {said} ({outcome}), expected {case.expect}: {case.why}")
    if case.score is not None:
        low, high = case.score
        score = outcome.score if outcome else None
        _hold(score is not None and low <= score <= high, f"{name} scores {score}, not {low} to {high}: {case.why}")


def lawful(name: str, view: View, settings: dict[str, Any] | None = None) -> Outcome | None:
    """Run a check and hold it to the rules: it does not raise, its score is in [0, 1], it says the same again, and it
    leaves the sample as it was. Returns the outcome.
    """
    before = deepcopy(view.sample)
    checks = build({name: settings or {}})
    outcome = checks.run(view)[name]
    _hold(not checks.errors[name], f"{name} raised, or returned what is no Outcome; the log says where")
    again = checks.run(View(view.sample, view.vectors, view.baseline))[name]
    _hold(repr(again) == repr(outcome), f"{name} says {outcome}, then {again}")
    _hold(repr(view.sample) == repr(before), f"{name} changed the sample")
    return outcome


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value["text"] * value["times"] if isinstance(value, dict) and value.keys() == {"text", "times"} else value


def _hold(right: bool, otherwise: str) -> None:
    if not right:
        raise AssertionError(otherwise)
