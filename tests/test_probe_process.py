"""The probe process as part of the evaluator: it asks the replica itself, and users' statistics do not know of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chatting import Chat, Evaluator, write
from support.daemon import run
from support.replica import Replica as Fake
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.plan import canaries
from palegreen.runtime.yamlfile import ConfigError


@pytest.fixture
def chat() -> Iterator[Chat]:
    with Chat() as chat:
        yield chat


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as fake:
        yield fake


@pytest.fixture
def reference(fake: Fake, tmp_path: Path) -> Path:
    (tmp_path / "questions.yaml").write_text("prompts:\n  - {name: one, user: what is one and one, max_tokens: 4}\n")
    out = tmp_path / "reference.json"
    done = run(
        "canary", "record", "--url", fake.url, "--prompts", str(tmp_path / "questions.yaml"), "--out", str(out),
        "--repeat", "2", "--sampled", "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def settings(fake: Fake, **more: Any) -> dict[str, Any]:
    return {"url": fake.url, "requests_per_minute": 600, "progress_interval": "100ms", **more}


def test_canaries_and_progress_are_shown_and_no_text_of_them_anywhere(
    chat: Chat, fake: Fake, reference: Path, tmp_path: Path
) -> None:
    config = write(tmp_path / "c.json", endpoint="chat", canary=settings(fake, reference=str(reference)))
    with Evaluator(chat.url, "--config", str(config)) as evaluator:
        until(lambda: evaluator.total("canary_runs_total", canary="one", result="pass", endpoint="chat") >= 2, 60)
        assert evaluator.value("palegreen_engine_progress", state="progress") == 1
        assert evaluator.total("forward_progress_timestamp_seconds") > 1e9
        assert evaluator.value("palegreen_evaluator_process_up", process="probe") == 1
        assert evaluator.total("evaluator_process_resident_memory_bytes", process="probe") > 0
        assert evaluator.total("probe_rounds_total", probe="canary", result="failed") == 0
        status, _, page = evaluator.get("/")
        assert (status, b"<td>probe</td><td>probes canary progress model_fingerprint</td>" in page) == (200, True)
        # They went past our own proxy.
        assert evaluator.total("tap_received_total", tap="proxy") == 0
        said = evaluator.get()[2].decode() + "".join(evaluator.log)
        assert "what is one" not in said


def test_a_probe_process_that_is_killed_is_started_again_and_nothing_else_is_touched(
    chat: Chat, fake: Fake, tmp_path: Path
) -> None:
    config = write(tmp_path / "c.json", canary=settings(fake))
    with Evaluator(chat.url, "--config", str(config)) as evaluator:
        pid = evaluator.child("probe")
        os.kill(pid, signal.SIGKILL)
        assert evaluator.ask("still there")[0] == 200
        until(lambda: evaluator.child("probe") != pid, 30)
        assert evaluator.total("evaluator_restarts_total", process="probe", reason="killed") == 1
        assert evaluator.total("evaluator_restarts_total", process="scorer") == 0


def test_a_request_that_hangs_does_not_keep_the_evaluator_from_stopping(chat: Chat, fake: Fake, tmp_path: Path) -> None:
    fake.mode = "hung"
    config = write(tmp_path / "c.json", canary=settings(fake, progress_timeout="1h"))
    with Evaluator(chat.url, "--config", str(config)) as evaluator:
        until(lambda: fake.asked, 60)
        evaluator.signal(signal.SIGTERM)
        assert evaluator.wait(20) == 0
        assert not evaluator.events("probe.restart")


def test_a_reload_begins_and_ends_probes(chat: Chat, fake: Fake, tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", endpoint="chat")
    with Evaluator(chat.url, "--config", str(path)) as evaluator:
        until(lambda: evaluator.value("palegreen_evaluator_process_up", process="probe") == 1, 60)
        assert evaluator.value("palegreen_engine_progress", state="progress") is None
        write(path, endpoint="chat", canary=settings(fake))
        evaluator.signal(signal.SIGHUP)
        until(lambda: evaluator.value("palegreen_engine_progress", state="progress") == 1, 60)
        write(path, endpoint="chat", canary=settings(fake, reference=str(tmp_path / "missing.json")))
        evaluator.signal(signal.SIGHUP)
        until(lambda: evaluator.events("config.refused"), 60)
        assert "missing.json: cannot be read" in evaluator.events("config.refused")[0]
        assert evaluator.value("palegreen_evaluator_process_up", process="probe") == 1
        write(path, endpoint="chat")
        evaluator.signal(signal.SIGHUP)
        until(lambda: evaluator.value("palegreen_engine_progress", state="progress") is None, 60)
        assert evaluator.ask("still there")[0] == 200


def test_a_reference_that_cannot_be_used_is_refused_at_the_start_in_one_line(reference: Path, tmp_path: Path) -> None:
    canary = {"url": "http://127.0.0.1:9", "reference": str(reference)}
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(json.loads(reference.read_text()) | {"model": "other"}))
    for bad, problem in (
        (canary | {"model": "other"}, "is of the model 'small', canary.model is 'other'"),
        (canary | {"reference": str(changed)}, "its contents are not those of"),
        (canary | {"reference": str(tmp_path / "none")}, "cannot be read"),
    ):
        config = EvaluateConfig.model_validate({"sink_address": "127.0.0.1:0", "canary": bad})
        with pytest.raises(ConfigError, match=problem) as refused:
            canaries(config, lambda _: None, tmp_path)
        assert "\n" not in str(refused.value)
    path = write(tmp_path / "c.json", sink_address="127.0.0.1:0", canary=canary | {"model": "other"})
    done = run("evaluate", "--config", str(path), "--embedder", "none", "--listen-address", "127.0.0.1:0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"palegreen: canary.reference {reference}: is of the model 'small'")
    path = write(tmp_path / "c.json", sink_address="127.0.0.1:0", canary={})
    done = run("evaluate", "--config", str(path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "canary needs its url, or an upstream" in done.stderr
