"""Answers of a real small model, recorded while it was well and with one fault each, against the demo's baseline."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import pytest

from palegreen.evaluators.drift.backtest import Replay, replay

CAPTURES = Path(__file__).parent / "captures" / "drift"
FAULTS = {
    "weights-3bit": 40,
    "weights-4bit": 110,
    "swapped-model": 40,
    "wrong-template": 40,
    "temperature": 60,
    "lost-system-prompt": 90,
    "max-tokens": 110,
    "empty-context": 150,
    "wrong-context": 150,
}
"""Samples in which each is to be found: about three times as many as it took when this was written."""


def replayed(name: str) -> Replay:
    folder = Path(str(files("palegreen.demo") / "baseline"))
    return replay(folder, CAPTURES / f"{name}.jsonl.gz", None, lambda *_: nullcontext(lambda _: None))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_real_model_pages_within_some_dozens_of_answers(name: str) -> None:
    pages = [each.alarm for each in replayed(name).alarms if each.alarm.pages]
    assert pages
    assert pages[0].sample < FAULTS[name]
    assert pages[0].since <= pages[0].sample


def test_six_hundred_more_answers_of_the_model_that_is_well_page_nobody() -> None:
    """One page in 50,000 was declared, so by chance this would fail for one such file in eighty."""
    found = replayed("clean")
    assert found.total == 600
    assert not [each for each in found.alarms if each.alarm.pages]


def test_other_questions_raise_the_channel_of_prompts_and_no_other() -> None:
    assert {each.alarm.channel for each in replayed("prompt-mix").alarms} == {"prompt"}


def test_what_was_cut_short_and_what_was_too_random_are_named() -> None:
    assert "length" in replayed("max-tokens").alarms[0].alarm.checks
    assert "logprob" in replayed("temperature").alarms[0].alarm.checks
