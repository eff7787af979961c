"""`palegreen canary record`, and references that cannot be used: one line each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.daemon import run
from support.replica import Replica as Fake
from support.replica import Spoken, speak

from palegreen.evaluators.baseline.progress import silent
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import Replica
from palegreen.evaluators.probes.prompts import BUILT_IN, prompts
from palegreen.evaluators.probes.record import Plan, RecordError, record
from palegreen.evaluators.probes.reference import load
from palegreen.runtime.yamlfile import ConfigError


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.yaml"
    path.write_text("prompts:\n  - {name: one, user: what is one and one, max_tokens: 4}\n")
    return path


def recorded(fake: Fake, *arguments: str) -> tuple[int, str]:
    done = run("canary", "record", "--url", fake.url, "--repeat", "2", "--sampled", "2", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_a_recorded_reference_says_what_it_is_of_and_is_not_written_over_without_force(
    questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference.json"
    with Fake() as fake:
        status, said = recorded(fake, "--prompts", str(questions), "--out", str(out))
        assert status == 0, said
        reference = load(out)
        assert said == f"{out}: {reference.id}, 1 questions to small\n"
        assert (reference.model, len(reference.cases[0].greedy), len(reference.cases[0].sampled)) == ("small", 2, 2)
        assert reference.cases[0].greedy[0].tokens[0].top
        before = out.read_bytes()
        status, said = recorded(fake, "--prompts", str(questions), "--out", str(out))
        assert (status, said) == (2, f"palegreen: {out}: is there already; allowed: another name, or --force\n")
        assert out.read_bytes() == before
        assert recorded(fake, "--prompts", str(questions), "--out", str(out), "--force")[0] == 0


def test_the_built_in_questions_are_recorded_without_those_that_the_engine_refuses(tmp_path: Path) -> None:
    def no_tools(body: dict[str, Any]) -> Spoken | None:
        return None if "tools" in body else speak(body)

    out = tmp_path / "reference.json"
    with Fake(no_tools) as fake:
        status, said = recorded(fake, "--out", str(out))
        assert status == 0, said
        assert "note: tool-call is left out: HTTP 400" in said
        assert len(load(out).cases) == len(prompts(BUILT_IN).prompts) - 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prompts: []\n", "prompts"),
        ("prompts:\n  - {name: sampled, user: x}\n", "sampled is the name of all sampled answers together"),
        ("prompts:\n  - {name: a, user: x}\n  - {name: a, user: y}\n", "two prompts are named a"),
        ("prompts:\n  - {name: a}\n", "exactly one of user and messages"),
        ("prompts:\n  - {name: A b, user: x}\n", "name"),
        ("prompts:\n  - {name: a, user: x, temprature: 1}\n", "temprature"),
    ],
)
def test_questions_that_cannot_be_put_are_refused_in_one_line(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "questions.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        prompts(str(tmp_path / "questions.yaml"))
    assert "\n" not in str(refused.value)


def test_an_engine_that_does_not_answer_as_it_must_is_one_line(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "reference.json"
    arguments = ("--prompts", str(questions), "--out", str(out))
    with Fake() as fake:
        for mode, line in (
            ("garbage", "prompt one: response body: not JSON"), ("busy", "prompt one: HTTP 429"),
            ("cut", "prompt one: the engine closed the connection in the middle"),
        ):  # fmt: skip
            fake.mode = mode
            with pytest.raises(RecordError, match=line) as failed:
                chat, plan = Chat(Replica(fake.url)), Plan(2, 0, "")
                record(chat, str(questions), out, plan, force=False, created=0.0, bar=silent)
            assert "\n" not in str(failed.value)
    status, said = recorded(fake, *arguments)
    assert (status, said.count("\n")) == (1, 1)
    assert "Connection refused" in said
    assert not out.exists()
    done = run("canary", "record", "--url", "ftp://x", "--out", str(tmp_path / "r"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_an_engine_that_accepts_and_never_answers_ends_the_recording_at_the_timeout(
    questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference.json"
    with Fake() as fake:
        fake.mode = "hung"
        status, said = recorded(fake, "--prompts", str(questions), "--out", str(out), "--timeout", "0.5")
    assert (status, said) == (1, f"palegreen: {fake.url}: prompt one: no whole answer within 0.5 s\n")


def test_the_first_answer_that_fails_is_told_while_others_hang(questions: Path, tmp_path: Path) -> None:
    def first_alone(body: dict[str, Any]) -> Spoken | None:
        if body["temperature"]:
            return None
        if len(fake.asked) > 1:
            fake.ended.wait(30)
        return speak(body)

    with Fake(first_alone) as fake:
        began = time.monotonic()
        status, said = recorded(fake, "--prompts", str(questions), "--out", str(tmp_path / "reference.json"))
        assert time.monotonic() - began < 20
    assert (status, said.count("\n")) == (1, 1)
    assert "prompt one: HTTP 400" in said


def test_answers_that_an_evaluator_would_refuse_to_read_are_refused_when_they_are_recorded(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "reference.json"
    for module in ("record", "reference"):
        monkeypatch.setattr(f"palegreen.evaluators.probes.{module}.MOST_BYTES", 1 << 20)
    long = [("word " * 100_000, {"word " * 100_000: 0.9})]
    with Fake(lambda _: long, logprobs=False) as fake, pytest.raises(RecordError) as failed:
        record(Chat(Replica(fake.url)), str(questions), out, Plan(3, 0, ""), force=False, created=0.0, bar=silent)
    line = (
        f"{fake.url}: prompt one: the answers so far are 1 MiB; allowed: 1; does the engine heed max_tokens (4 here)?"
    )
    assert str(failed.value) == line
    assert not out.exists()


def test_the_same_answer_to_every_question_is_noted(questions: Path, tmp_path: Path) -> None:
    arguments = ("--prompts", str(questions), "--out", str(tmp_path / "reference.json"), "--force")
    questions.write_text(questions.read_text() + "  - {name: two, user: what is two and two, max_tokens: 4}\n")
    noted = "note: every question got the same answer; is this the model, and is it well?\n"
    with Fake(lambda _: [("No.", {"No.": 0.9})]) as same, Fake() as well:
        assert noted in recorded(same, *arguments)[1]
        assert noted not in recorded(well, *arguments)[1]


def test_a_reference_that_was_changed_cut_or_is_of_another_kind_is_refused_in_one_line(
    questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference.json"
    with Fake() as fake:
        assert recorded(fake, "--prompts", str(questions), "--out", str(out))[0] == 0
    good = json.loads(out.read_text())
    for change, problem in (
        ({"model": "another"}, "its contents are not those of"),
        ({"id": ""}, "its contents are not those of"),
        ({"format": 2}, "format: got 2; allowed: 1"),
        ({"cases": []}, "cases: List should have at least 1"),
        ({"temperature": "hot"}, "temperature"),
    ):
        out.write_text(json.dumps(good | change))
        with pytest.raises(ConfigError, match=problem) as refused:
            load(out)
        assert "\n" not in str(refused.value)
    for text in ("", "{", "[]", out.read_text()[:100]):
        out.write_text(text)
        with pytest.raises(ConfigError, match=str(out)) as refused:
            load(out)
        assert "\n" not in str(refused.value)
    out.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(out)
