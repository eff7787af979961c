"""What can be made wrong in the demo: on one replica, while it runs, and in a way that no status code tells."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support.daemon import PROGRAM, environment
from support.waiting import until

from palegreen.demo import control, engine
from palegreen.demo.faults import FAULTS
from palegreen.demo.gpu import Driver
from palegreen.demo.injecting import Faults
from palegreen.demo.quality import Quality
from palegreen.demo.questions import KINDS, questions, system_prompt
from palegreen.demo.replica import Asked, Replica

needs_engine = pytest.mark.skipif(engine.available() is not None, reason=str(engine.available()))


def test_questions_are_the_same_for_the_same_seed_and_of_the_kinds_asked_for() -> None:
    assert questions(3, 50) == questions(3, 50) != questions(4, 50)
    kinds = Counter(question.kind for question in questions(5, 2_000, {"fact": 0, "list": 3}))
    assert kinds["fact"] == 0
    assert kinds["list"] > 2 * kinds["howto"] > 0
    assert set(kinds) == set(KINDS) - {"fact"}


def test_a_question_about_a_passage_carries_it_for_the_model_and_for_the_evaluator() -> None:
    asked = Asked(6)
    request = next(request for request in asked if "metadata" in request)
    assert request["metadata"]["contexts"] in request["messages"][-1]["content"]
    assert request["messages"][0] == {"role": "system", "content": system_prompt()}


def answer(url: str, question: str) -> str:
    import urllib.request

    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 32, "temperature": 0}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode()), timeout=60
    ) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


@needs_engine
def test_an_engine_of_other_weights_is_at_the_same_address_says_the_same_of_itself_and_answers_otherwise(
    tmp_path: Path,
) -> None:
    source = engine.default_model()
    assert source is not None
    with engine.LlamaServer().start(threads=1) as server:
        replica = Replica(1, server, server.url, Quality(server.url, tmp_path / "none"), 1.0)
        url, before = server.url, answer(server.url, "What is the capital of France?")
        assert replica.suffer(FAULTS["other-weights"], tmp_path) == ""
        assert server.url == url
        assert answer(url, "What is the capital of France?") != before
        assert replica.suffer(FAULTS["none"], tmp_path) == ""
        assert answer(url, "What is the capital of France?") == before
    made = tmp_path / "4bit" / source.name
    assert made.stat().st_size == source.stat().st_size


def test_faults_are_refused_in_words_and_a_lost_system_prompt_needs_no_engine(tmp_path: Path) -> None:
    replica = Replica(1, None, "http://127.0.0.1:9", Quality("http://127.0.0.1:9", tmp_path / "none"), 1.0)
    faults = Faults([replica], tmp_path)
    assert faults.answer("rust") == (False, f"no fault 'rust'; allowed: {', '.join(FAULTS)}")
    assert faults.answer("lost-system-prompt 2") == (False, "no replica '2'; allowed: 1 to 1")
    for name in ("other-weights", "engine-killed", "engine-hung"):
        assert faults.answer(name)[1].startswith("the engine is your own and is not started again")
    assert faults.answer("gpu-lost") == (False, "there is no simulated GPU that could be lost")
    assert faults.answer("lost-system-prompt") == (True, "replica 1: the system prompt is not sent any more")
    assert faults.said == ["fault    replica 1: the system prompt is not sent any more"]
    assert faults.answer("none") == (True, "replica 1: as it should be")


def _never(_line: str) -> tuple[bool, str]:
    raise AssertionError


def test_one_demo_at_a_time_takes_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OSError, match="No such file"):
        control.tell("none")
    with control.listening(lambda line: (True, f"did {line}")) as first, control.listening(_never) as second:
        assert (first, second) == (True, False)
        assert control.tell("other-weights 2") == (True, "did other-weights 2")
    with pytest.raises(OSError, match="No such file"):
        control.tell("none")


@needs_engine
def test_a_fault_is_brought_about_in_the_demo_that_runs_and_it_says_so(tmp_path: Path) -> None:
    own = environment({"TMPDIR": str(tmp_path)})
    none = subprocess.run(
        [PROGRAM, "demo", "fault", "none"], env=own, capture_output=True, text=True, timeout=60, check=False
    )
    assert (none.returncode, none.stderr) == (
        1,
        "palegreen: no demo is running; start one: make run, or palegreen demo\n",
    )
    command = [PROGRAM, "demo", "--requests-per-second", "3", "--no-alerts"]
    said = tmp_path / "stderr"
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=stderr, text=True) as demo,
    ):
        assert demo.stdout is not None
        try:
            assert any(line.startswith("quality  replica 3") for line in demo.stdout)
            told = subprocess.run(
                [PROGRAM, "demo", "fault", "wrong-template", "--replica", "2"],
                env=own, capture_output=True, text=True, timeout=100, check=False,
            )  # fmt: skip
            assert told.stdout == "replica 2: another model's chat template\n", told
            assert any(line.startswith("fault    replica 2") for line in demo.stdout), said.read_text()
        finally:
            demo.send_signal(signal.SIGTERM)


@needs_engine
def test_an_engine_that_was_killed_or_stopped_is_back_when_the_fault_is_over(tmp_path: Path) -> None:
    with engine.LlamaServer().start(threads=1) as server:
        replica = Replica(1, server, server.url, Quality(server.url, tmp_path / "none"), 1.0)
        assert replica.suffer(FAULTS["engine-hung"], tmp_path) == ""
        until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        assert replica.suffer(FAULTS["engine-killed"], tmp_path) == "", "one fault instead of another"
        until(lambda: server.pid is None)
        assert replica.suffer(FAULTS["none"], tmp_path) == ""
        assert answer(server.url, "What is the capital of France?")


def test_a_simulated_gpu_is_lost_calm_and_as_it_was(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario"
    driver = Driver(scenario=scenario)
    for change in ("lost", "calm", ""):
        driver.change(change)
        text = scenario.read_text()
        assert ("rule 0 * 15" in text) == (change == "lost"), change
        assert ("gpu_utilization 45.0\n" in text) == (change == "calm"), change
    Driver().change("lost")  # the real one is left alone
