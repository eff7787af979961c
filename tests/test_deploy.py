"""Declared deploys, through the evaluator's processes: what declares one, what is said of it, what outlives what."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import bcrypt
import pytest
from support.chatting import Evaluator, write
from support.daemon import Daemon
from support.deploying import Engine, post
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.deploy.deploys import QUIET, Deploy, Deploys
from palegreen.evaluators.deploy.fingerprint import ModelFingerprint
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.pipeline import Pipeline
from palegreen.runtime.exposition import Collected, Readings

NOW = 1_800_000_000.0
VLLM = {"id": "qwen", "root": "/models/qwen", "max_model_len": 8192, "created": 1}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def deploys(clock: Clock | None = None, told: list[Deploy] | None = None, **settings: Any) -> Deploys:
    config = EvaluateConfig(upstream="http://127.0.0.1:1", endpoint="chat", **settings)
    return Deploys(lambda: config, (told if told is not None else []).append, clock or Clock())


def marker(at: float = NOW, name: str = "system_fingerprint", replica: str = "r0") -> dict[str, Any]:
    about = {"model": "m", "endpoint": "chat", "replica": replica, "what": "a -> b"}
    return {"kind": "marker", "at": at, "marker": name, **about}


def shown(found: Deploys, name: str) -> str:
    collected = Collected()
    found.show(collected)
    return collected.readings().lines.get(f"palegreen_{name}", "")


def fingerprinted(value: str) -> list[Readings]:
    collected = Collected()
    collected.add("palegreen_model_fingerprint_info", 1, "", "", "", "", "", value)
    return [collected.readings()]


def refuse(evaluator: Evaluator) -> None:
    """What is no such request is one line that says so, and declares nothing."""
    for body, status, said in (
        ("{", 400, "not JSON"),
        ("[]", 400, "allowed: "),
        ('{"revison": "v1"}', 400, "revison: unknown key, did you mean revision?; allowed: note, revision"),
        ('{"revision": 7}', 400, "revision: got 7"),
        (json.dumps({"revision": "x" * 201}), 400, "revision: got "),
        (json.dumps({"note": "two\nlines"}), 400, "note: got characters that cannot be printed"),
        ("x" * 5000, 413, "larger than is allowed: 4096 bytes"),
    ):
        answered = post(evaluator, body)
        assert (answered[0], answered[1].count("\n")) == (status, 1), body
        assert said in answered[1]
    for method in ("GET", "HEAD", "PUT"):
        status, headers, _ = evaluator.get("/-/deploy", method=method)
        assert (status, headers["allow"]) == (405, "POST")
    assert post(evaluator, path="/metrics")[0] == 405
    assert evaluator.total("deploys_total") == 0
    assert not [line for line in evaluator.log if "Traceback" in line]


def test_a_request_declares_a_deploy_and_one_that_cannot_be_read_is_refused_in_a_line(engine: Engine) -> None:
    with Evaluator(engine.url, "--endpoint", "chat") as evaluator:
        refuse(evaluator)
        assert evaluator.total("deploys_total") == 0
        assert evaluator.value("palegreen_deploys_total", cause="request") == 0
        status, line = post(evaluator, '{"revision": "v42", "note": "new weights"}')
        assert (status, line.count("\n")) == (200, 1)
        assert line.startswith("a deploy of revision v42 is declared at 2")
        assert evaluator.total("deploys_total", cause="request", endpoint="chat") == 1
        assert evaluator.total("deploy_timestamp_seconds") > NOW * 0.9
        (event,) = evaluator.events("deploy.declared")
        assert "cause=request" in event
        assert "revision=v42" in event
        assert 'note="new weights"' in event
        assert post(evaluator, b"")[0] == 200
        assert evaluator.total("deploys_total", cause="request") == 2
        assert "nothing is added" in post(evaluator, '{"revision": "v42"}')[1]
        assert evaluator.total("deploys_total", cause="request") == 2


def test_the_node_daemon_offers_no_such_thing() -> None:
    with Daemon() as node:
        assert post(node)[0] == 405
        assert node.get("/-/deploy")[0] == 404
        assert b"/-/" not in node.get("/-/deploy")[2]


def test_a_request_needs_the_password_that_the_metrics_need(engine: Engine, tmp_path: Path) -> None:
    users = {"ci": bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()}
    web = write(tmp_path / "web.yaml", basic_auth_users=users)
    with Evaluator(engine.url, "--web.config.file", str(web)) as evaluator:
        assert post(evaluator)[0] == 401
        basic = {"authorization": "Basic " + base64.b64encode(b"ci:secret").decode()}
        assert post(evaluator, headers=basic)[0] == 200


def test_another_fingerprint_in_the_responses_is_a_deploy_and_a_killed_scorer_does_not_forget(
    engine: Engine, tmp_path: Path
) -> None:
    with Evaluator(engine.url, "--store", str(tmp_path / "samples.db"), "--endpoint", "chat") as evaluator:
        pid = evaluator.child("scorer")
        evaluator.ask("one")
        engine.fingerprint = "fp_two"
        evaluator.ask("two")
        until(lambda: evaluator.total("deploys_total", cause="system_fingerprint", model="small") == 1, 20)
        assert evaluator.total("marker_changes_total", marker="system_fingerprint") == 1
        until((tmp_path / "samples.db.deploys.json").exists, 20)
        os.kill(pid, signal.SIGKILL)
        until(lambda: evaluator.child("scorer") != pid, 20)
        engine.fingerprint = "fp_one"
        evaluator.ask("three")
        until(lambda: evaluator.total("quality_samples_total") >= 1, 20)
        engine.fingerprint = "fp_three"
        evaluator.ask("four")
        until(lambda: evaluator.total("marker_changes_total", marker="system_fingerprint") == 2, 20)
        assert evaluator.total("deploys_total", cause="system_fingerprint") == 1  # within ten minutes of the first
        log = "\n".join(evaluator.log)
    assert "fp_" not in log + (tmp_path / "samples.db.deploys.json").read_text()


def test_the_pod_template_s_hash_is_compared_over_restarts(engine: Engine, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "samples.db"))
    for pod, count in (("6f7d", 0), ("9c41", 1)):
        with Evaluator(engine.url, *store, env={"PALEGREEN_POD_TEMPLATE_HASH": pod}) as evaluator:
            evaluator.child("scorer")
            until((tmp_path / "samples.db.deploys.json").exists, 20)
            until(lambda count=count: evaluator.total("deploys_total", cause="pod_template") == count, 20)
            evaluator.signal(signal.SIGTERM)
            assert evaluator.wait(20) == 0


def test_a_baseline_is_stale_once_a_deploy_is_declared_and_by_its_age_and_version(
    engine: Engine, tmp_path: Path
) -> None:
    manifest = {"format": 1, "samples": 1000, "created": 1e9, "until": 1e9, "evaluator_version": "0.0.1"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with Evaluator(engine.url, "--baseline", str(tmp_path), "--baseline-max-age", "3650d") as evaluator:
        evaluator.child("scorer")
        stale = "palegreen_baseline_stale"
        until(lambda: evaluator.value(stale, reason="age") == 1, 20)
        assert (evaluator.value(stale, reason="deploy"), evaluator.value(stale, reason="mismatch")) == (0, 1)
        post(evaluator)
        until(lambda: evaluator.value(stale, reason="deploy") == 1, 20)
        assert "give --store" in until(lambda: evaluator.events("baseline.no_candidate"), 20)[0]


def test_further_deploys_of_a_kind_are_quiet_for_a_while_and_other_kinds_and_replicas_are_not() -> None:
    clock, told = Clock(), list[Deploy]()
    found = deploys(clock, told)
    for at, name, replica in (
        (NOW, "system_fingerprint", "r0"),
        (NOW + 1, "system_fingerprint", "r0"),
        (NOW + 2, "prompt", "r0"),
        (NOW + 3, "system_fingerprint", "r1"),
        (NOW + QUIET, "system_fingerprint", "r0"),
    ):
        found.hear(marker(at, name, replica))
    assert [deploy.at - NOW for deploy in told] == [0, 2, 3, QUIET]
    assert shown(found, "marker_changes_total").count("system_fingerprint") == 2
    assert found.latest == told[-1]


def test_another_fingerprint_of_the_weights_is_a_deploy_and_a_silent_server_is_none() -> None:
    told: list[Deploy] = []
    found = deploys(told=told)
    for readings in (fingerprinted("aa"), [], fingerprinted("aa"), fingerprinted("bb"), []):
        found.look(readings)
    assert [(deploy.cause, deploy.what) for deploy in told] == [("model_fingerprint", "aa -> bb")]


def test_what_is_declared_outlives_the_evaluator_where_there_is_a_store(tmp_path: Path) -> None:
    store = str(tmp_path / "samples.db")
    first = deploys(store=store)
    assert asyncio.run(first.posted(b""))[0] == 200
    first.hear({"kind": "markers", "state": {"scopes": {"k": [1, {}]}}})
    first.save()
    assert (tmp_path / "samples.db.deploys.json").stat().st_mode & 0o777 == 0o600
    second = deploys(store=store)
    assert second.latest == first.latest
    assert second.known() == first.known()
    assert str(NOW) in shown(second, "deploy_timestamp_seconds")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"deploys": [1, {"at": 1}], "markers": 3, "known": []}'])
def test_a_memory_that_cannot_be_read_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "samples.db.deploys.json").write_text(text)
    found = deploys(store=str(tmp_path / "samples.db"))
    assert found.known() == {"markers": {}, "deploys": []}


def test_a_response_of_another_model_than_was_requested_is_counted(tmp_path: Path) -> None:
    pipeline = Pipeline(EvaluateConfig(file=tmp_path, embedder="none"))
    for asked in ("small", "large", ""):
        record = {"response": "An answer.", "model": "small", "requested_model": asked}
        pipeline.score([Envelope({"tap": "file", "kind": "jsonl"}, [json.dumps(record).encode()])])
    (line,) = pipeline.readings().lines["palegreen_requested_model_mismatch_total"].splitlines()
    pipeline.close()
    assert 'model="small"' in line
    assert line.endswith(" 1.0")


def probed(probe: ModelFingerprint) -> str:
    probe.run(Event())
    collected = Collected()
    probe.show(collected)
    return collected.readings().lines.get("palegreen_model_fingerprint_info", "")


def page(**fields: Any) -> dict[str, Any]:
    return {"object": "list", "data": [VLLM | fields]}


def test_the_fingerprint_is_of_the_weights_and_not_of_the_start(engine: Engine) -> None:
    probe = ModelFingerprint(EvaluateConfig(upstream=engine.url))
    assert probed(probe) == ""
    engine.pages["/v1/models"] = page()
    first = probed(probe)
    assert 'fingerprint="' in first
    engine.pages["/v1/models"] = page(created=2)
    assert probed(probe) == first
    engine.pages["/v1/models"] = 503
    assert probed(probe) == first
    engine.pages["/v1/models"] = page(root="/models/qwen-awq")
    assert probed(probe) not in ("", first)


@pytest.mark.parametrize(
    ("path", "said", "changed"),
    [
        ("/v1/models", page(meta={"n_params": 7, "size": 9}), page(meta={"n_params": 7, "size": 5})),
        ("/v1/models", page(), page(max_model_len=4096)),
        ("/props", {"model_path": "a.gguf", "chat_template": "x"}, {"model_path": "a.gguf", "chat_template": "y"}),
        ("/get_model_info", {"model_path": "m", "weight_version": "1"}, {"model_path": "m", "weight_version": "2"}),
        ("/info", {"model_id": "m", "model_sha": "1"}, {"model_id": "m", "model_sha": "2"}),
    ],
)
def test_each_server_s_page_tells_a_change(engine: Engine, path: str, said: Any, changed: Any) -> None:
    probe = ModelFingerprint(EvaluateConfig(upstream=f"{engine.url}/v1"))
    engine.pages[path] = said
    first = probed(probe)
    engine.pages[path] = changed
    assert "" != first != probed(probe) != ""


@pytest.mark.parametrize("said", [None, [], 7, {"data": 7}, {"data": [7, {}]}, "x" * (2 << 20)])
def test_a_page_of_something_else_says_nothing(engine: Engine, said: Any) -> None:
    engine.pages |= dict.fromkeys(("/v1/models", "/props", "/get_model_info", "/info"), said)
    assert probed(ModelFingerprint(EvaluateConfig(upstream=engine.url))) == ""


def test_pages_that_are_not_there_are_asked_for_seldom(engine: Engine) -> None:
    engine.pages["/v1/models"] = page()
    probe = ModelFingerprint(EvaluateConfig(upstream=engine.url))
    for _ in range(10):
        probe.run(Event())
    assert (engine.asked.count("/v1/models"), engine.asked.count("/props")) == (10, 1)


def test_a_server_that_is_not_there_or_asked_to_stop_raises_nothing() -> None:
    probe = ModelFingerprint(EvaluateConfig(upstream="http://127.0.0.1:1"))
    assert probed(probe) == ""
    stopped = Event()
    stopped.set()
    probe.run(stopped)
