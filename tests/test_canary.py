"""Canaries: fixed questions to the replica itself, judged by how much the recorded answers differ among themselves."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.replica import Replica as Fake
from support.replica import Spoken, speak

from palegreen.evaluators.baseline.progress import silent
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.budget import Budget
from palegreen.evaluators.probes.canary import Canary
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import Replica
from palegreen.evaluators.probes.compare import edit, variation
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.lazily import Lazily
from palegreen.evaluators.probes.record import Plan, record
from palegreen.evaluators.probes.reference import Reference, load
from palegreen.runtime.exposition import Collected

QUESTIONS = """\
prompts:
  - {name: colours, user: "red green blue and then some more of them", max_tokens: 8}
  - {name: numbers, user: "one two three four five six", max_tokens: 6}
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Reference]:
    """Records what a fake replica answers."""
    (tmp_path / "questions.yaml").write_text(QUESTIONS)

    def make(fake: Fake, repeats: int = 3, sampled: int = 0) -> Reference:
        chat, out = Chat(Replica(fake.url)), tmp_path / "reference.json"
        plan = Plan(repeats, sampled, "")
        record(chat, str(tmp_path / "questions.yaml"), out, plan, force=True, created=1.0, bar=_silent)
        return load(out)

    return make


def _silent(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return silent(label, total)


class Run:
    """A canary probe against a fake replica, round by round."""

    def __init__(self, fake: Fake, reference: Reference, *, budget: Budget | None = None, **settings: Any) -> None:
        settings = {"sampled_share": 0.0, "timeout": 30.0} | settings
        canary = CanaryConfig(url=fake.url, **settings)
        config = EvaluateConfig(sink_address="127.0.0.1:0", endpoint="chat", canary=canary)
        chat = Chat(replace(Replica.of(config, canary), clock=fake.clock), priority=canary.priority)
        self.probe = Canary(
            config, canary, reference, chat, Lazily("static", 1).vector, rng=random.Random(0), budget=budget
        )

    def rounds(self, count: int = 2) -> Run:
        for _ in range(count):
            self.probe.run(Event())
        return self

    def total(self, name: str, *having: str) -> float:
        collected = Collected()
        self.probe.show(collected)
        lines = collected.readings().lines.get(f"palegreen_canary_{name}", "").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(f'"{one}"' in line for one in having))


def worse(body: dict[str, Any]) -> Spoken:
    """Another model: other words after the first."""
    return [speak(body)[0], *[("potato ", {"potato ": 0.9, "the ": 0.05}) for _ in range(3)]]


def less_sure(body: dict[str, Any]) -> Spoken:
    """Other weights that write the same words, less surely."""
    return [(token, {token: 0.6, "the ": 0.3, "a ": 0.02}) for token, _ in speak(body)]


def test_a_replica_that_answers_as_recorded_passes_with_a_full_score(recorded: Callable[..., Reference]) -> None:
    with Fake() as fake:
        run = Run(fake, recorded(fake)).rounds(4)
        assert run.total("runs_total", "pass") == 4
        assert run.total("runs_total", "colours", "pass") == 2
        assert run.total("score", "numbers") == 1.0
        assert run.total("component_score", "colours", "logprob") == 1.0
        assert run.total("tokens_total", "input") == 28
        assert run.total("tokens_total", "output") == 28
        assert run.total("reference_info", "small", "chat") == 1
        assert run.total("reference_mismatch") == 0


def test_a_canary_says_that_it_is_one_and_asks_as_it_was_recorded(recorded: Callable[..., Reference]) -> None:
    with Fake() as fake:
        run = Run(fake, recorded(fake), priority=5)
        fake.requests.clear()
        run.rounds(1)
        (path, headers, body), *more = fake.requests
        assert not more
        assert path == "/v1/chat/completions"
        assert headers["x-palegreen-canary"] == "1"
        assert body["user"] == "palegreen-canary"
        assert (body["temperature"], body["stream"], body["logprobs"], body["priority"]) == (0.0, True, True, 5)


@pytest.mark.parametrize(("say", "component"), [(worse, "exact"), (less_sure, "logprob")])
def test_other_words_and_the_same_words_with_other_logprobs_fail(
    recorded: Callable[..., Reference], say: Callable[[dict[str, Any]], Spoken], component: str
) -> None:
    with Fake() as fake:
        run = Run(fake, recorded(fake))
        fake.say = say
        run.rounds(2)
        assert run.total("runs_total", "fail") == 2
        assert run.total("component_score", "numbers", component) < 0.8


def test_a_text_that_is_not_the_same_each_time_when_recorded_is_not_required_to_be(
    recorded: Callable[..., Reference],
) -> None:
    turns = iter(range(1000))

    def wavering(body: dict[str, Any]) -> Spoken:
        spoken = speak(body)
        return [*spoken[:-1], (f"end{next(turns) % 2} ", {"end0 ": 0.45, "end1 ": 0.45})]

    with Fake(wavering) as fake:
        run = Run(fake, recorded(fake, repeats=4)).rounds(6)
        assert run.total("runs_total", "fail") == 0
        fake.say = worse
        run.rounds(2)
        assert run.total("runs_total", "fail") == 2


def test_an_answer_that_parts_at_a_tie_is_no_failure_and_one_that_parts_elsewhere_is(
    recorded: Callable[..., Reference],
) -> None:
    def tied(chosen: str) -> Callable[[dict[str, Any]], Spoken]:
        return lambda body: [
            *speak(body)[:3],
            (chosen, {"left ": 0.47, "right ": 0.45, "up ": 0.08}),
            ("on ", {"on ": 1.0}),
        ]

    with Fake(tied("left ")) as fake:
        run = Run(fake, recorded(fake))
        fake.say = tied("right ")
        assert run.rounds(2).total("runs_total", "fail") == 0
        fake.say = tied("up ")
        assert run.rounds(2).total("runs_total", "fail") == 2


def test_an_engine_without_logprobs_is_asked_without_and_judged_by_its_words(
    recorded: Callable[..., Reference],
) -> None:
    with Fake(logprobs=False) as fake:
        run = Run(fake, recorded(fake)).rounds(3)
        assert run.total("runs_total", "pass") == 3
        refused = [body for body in fake.asked[-4:] if "logprobs" in body]
        assert len(refused) == 1
        assert run.total("component_score", "logprob") == 0  # absent
        fake.say = worse
        assert run.rounds(1).total("runs_total", "fail") == 1


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("busy", "busy"), ("loading", "busy"), ("failing", "refused"), ("garbage", "malformed"), ("cut", "interrupted"),
        ("hung", "timeout"),
    ],
)  # fmt: skip
def test_no_answer_to_judge_is_an_error_with_its_reason_and_never_a_failure(
    recorded: Callable[..., Reference], mode: str, reason: str
) -> None:
    with Fake() as fake:
        run = Run(fake, recorded(fake))
        assert run.rounds(2).total("score") == 2
        fake.mode = mode
        run.rounds(2)
        assert run.total("score") == run.total("component_score") == 0  # absent
        assert run.total("runs_total", "error") == 2
        assert run.total("errors_total", reason) == 2
        assert (run.total("runs_total", "fail"), run.total("runs_total", "pass")) == (0, 2)


def test_a_question_that_is_always_refused_does_not_keep_others_from_being_put(
    recorded: Callable[..., Reference],
) -> None:
    def choosy(body: dict[str, Any]) -> Spoken | None:
        return None if body["messages"][-1]["content"].startswith("red") else speak(body)

    with Fake() as fake:
        run = Run(fake, recorded(fake))
        fake.say = choosy
        run.rounds(6)
        assert run.total("runs_total", "colours", "error") == 3
        assert run.total("runs_total", "numbers", "pass") == 3


def test_a_budget_that_is_spent_is_counted_and_asks_nothing_until_it_has_filled_again(
    recorded: Callable[..., Reference],
) -> None:
    now = 0.0
    with Fake() as fake:
        reference = recorded(fake)
        budget = Budget(120, max(case.cost for case in reference.cases), clock=lambda: now)
        run = Run(fake, reference, budget=budget)
        fake.requests.clear()
        run.rounds(5)
        assert len(fake.asked) == run.total("runs_total", "pass") == 1
        assert run.total("skipped_total", "budget") == 4
        assert run.total("runs_total", "error") == 0
        now = 3600.0
        assert run.rounds(1).total("runs_total", "pass") == 2


def test_another_model_name_is_told_and_compared_all_the_same(recorded: Callable[..., Reference]) -> None:
    with Fake() as fake:
        run = Run(fake, recorded(fake))
        fake.model = "other"
        run.rounds(1)
        assert run.total("reference_mismatch") == 1
        assert run.total("runs_total", "pass") == 1
        fake.model = "small"
        assert run.rounds(1).total("reference_mismatch") == 0


def test_sampled_answers_alarm_together_when_they_move_and_not_when_they_vary_as_recorded(
    recorded: Callable[..., Reference],
) -> None:
    rng = random.Random(1)

    def varied(body: dict[str, Any]) -> Spoken:
        spoken = speak(body)
        return spoken if body["temperature"] == 0 else rng.sample(spoken, len(spoken) - 1)

    with Fake(varied) as fake:
        reference = recorded(fake, repeats=2, sampled=10)
        run = Run(fake, reference, sampled_share=1.0, requests_per_minute=60, false_alarm_every="30m").rounds(40)
        assert run.total("runs_total", "sampled", "pass") == 40
        assert run.total("sampled_score_ratio") < 1
        assert fake.asked[-1]["temperature"] == reference.temperature
        fake.say = worse
        run.rounds(30)
        assert run.total("sampled_score_ratio") > 1
        assert run.total("runs_total", "sampled", "fail") > 0


def test_the_key_is_read_before_each_request_and_one_that_cannot_be_is_an_error_of_its_own(
    recorded: Callable[..., Reference], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("first\n")
    with Fake() as fake:
        run = Run(fake, recorded(fake), api_key_file=key).rounds(1)
        assert fake.requests[-1][1]["authorization"] == "Bearer first"
        key.write_text("second\n")
        run.rounds(1)
        assert fake.requests[-1][1]["authorization"] == "Bearer second"
        key.unlink()
        run.rounds(1)
        assert run.total("errors_total", "secret") == 1


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_edit_distance_is_levenshteins(one: str, other: str) -> None:
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        above, row = row, [at]
        for place, against in enumerate(other, 1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (letter != against)))
    longest = max(len(one), len(other))
    assert edit(one, other) == pytest.approx(1 - row[-1] / longest if longest else 1)
    assert edit(one, other) == edit(other, one)


_TOP = st.dictionaries(st.sampled_from("abcdef"), st.floats(-8, -2), max_size=5)


@given(_TOP, _TOP)
def test_the_distance_of_first_tokens_is_symmetric_from_0_to_1_and_0_only_of_the_same(
    one: dict[str, float], other: dict[str, float]
) -> None:
    assert 0 <= variation(one, other) <= 1
    assert variation(one, other) == pytest.approx(variation(other, one))
    assert variation(one, one) == 0
    if one != other:
        assert variation(one, other) > 0
