"""Defects of our own and odd answers: they cost what they touch, they are said, and they end when their cause does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pynvml
import pytest
from support.daemon import Daemon, run
from support.engine import VLLM_PAGE, samples, source, value
from support.gpus import Machine, library
from support.server import NOT_FOUND, Server, hang, response
from support.waiting import until

from palegreen.demo.driver.build import BuildError
from palegreen.exporter.nvml.binding import Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.known import Known
from palegreen.exporter.nvml.worker import Pace, Worker
from palegreen.exporter.snapshot import Snapshots
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import NOTHING, Readings

RUNNING = "palegreen_engine_requests_running"


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    try:
        built = library(tmp_path_factory.getbasetemp().parent / "drivers")
    except BuildError as failure:
        pytest.skip(f"the driver cannot be simulated: {failure}")
    return Machine(tmp_path, built, {"gpus": 2})


def test_a_rendering_that_fails_shows_nothing_rather_than_what_was_true_before_and_recovers() -> None:
    failing = False

    def own() -> Readings:
        if failing:
            raise MemoryError
        return Readings({"palegreen_config_last_reload_successful": "palegreen_config_last_reload_successful 1.0\n"})

    snapshots = Snapshots(own)
    snapshots.start()
    try:
        until(lambda: b"reload_successful 1.0" in snapshots.body(openmetrics=False, gzipped=False), 5)
        failing = True
        until(lambda: snapshots.body(openmetrics=False, gzipped=False) == b"", 5)
        assert not snapshots.rendered
        failing = False
        until(lambda: b"reload_successful 1.0" in snapshots.body(openmetrics=False, gzipped=False), 5)
    finally:
        snapshots.stop()


def test_an_odd_answer_of_one_call_does_not_end_the_worker_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boundary here is the binding itself: what it returns is not ours to choose."""
    calls = 0

    def odd(*_: object) -> int:
        nonlocal calls
        calls += 1
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd")

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", odd)
    worker = Worker(Library(), 0, Events(), Known(), Pace(interval=0.05, deadline=1.0, tick=0.05))
    try:
        until(lambda: calls >= 2, 10)
        _, up, readings = worker.latest()
        assert up is False
        assert readings is NOTHING
    finally:
        worker.stop()


def test_a_gpu_that_answers_no_call_is_not_up(machine: Machine) -> None:
    with machine.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 1, 10)
        machine.play({"gpus": [{}, {"errors": {"*": "UNKNOWN"}}]})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 0, 10)
        assert daemon.value("palegreen_gpu_info", gpu="1") is None
        assert daemon.value("palegreen_gpu_up", gpu="0") == 1
        machine.play({"gpus": 2})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 1, 10)


def test_a_driver_that_is_upgraded_under_a_running_daemon_is_a_mismatch(machine: Machine) -> None:
    with machine.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 1, 10)
        broken = "LIB_RM_VERSION_MISMATCH"
        machine.play({"gpus": 2, "init": broken, "errors": {"*": broken}})
        until(lambda: daemon.value("palegreen_driver_library_mismatch") == 1, 15)
        assert daemon.value("palegreen_source_up", source="nvml") == 0
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 0, 10)
        machine.play({"gpus": 2})
        until(lambda: daemon.value("palegreen_driver_library_mismatch") == 0, 15)
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 1, 10)


def test_check_and_once_do_not_hang_on_a_driver_that_does(machine: Machine) -> None:
    machine.play({"gpus": [{}, {"hang": ["*"]}]})
    asked = ["--listen-address", "127.0.0.1:0", "--nvml-library", str(machine.library)]
    found = run("check", *asked, env=machine.environment)
    assert "FAIL  gpus: 2 GPUs; 1 not answering" in found.stdout
    shown = run("node", "--once", "--nvml-library", str(machine.library), env=machine.environment)
    assert 'gpu="0",mig=""} 1.0' in shown.stdout.split("# TYPE palegreen_gpu_up")[1].split("#")[0]
    machine.play({"gpus": 2, "hang": ["nvmlInitWithFlags", "nvmlInit_v2"]})
    stuck = run("node", "--once", "--nvml-library", str(machine.library), env=machine.environment)
    assert 'palegreen_source_up{source="nvml",target=""} 0.0' in stuck.stdout


LLAMA = response("# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n")
MODELS = response('{"data": [{"id": "qwen"}]}', "application/json")


def test_a_model_name_that_is_known_stays_when_the_api_does_not_say_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palegreen.exporter.engines.facts._KEPT", 0.05)
    monkeypatch.setattr("palegreen.exporter.engines.facts._ASKED_AGAIN", 0.05)
    with Server({"/metrics": LLAMA, "/v1/models": MODELS}) as server:
        engine = source(server.url)
        assert value(samples(engine.collect()), RUNNING, model="qwen") == 1
        server.answers["/v1/models"] = response("broken", status="500 Internal Server Error")
        asked = len(server.paths)
        until(lambda: engine.collect() and server.paths[asked:].count("/v1/models") >= 2, 10)
        assert value(samples(engine.collect()), RUNNING, model="qwen") == 1
        server.answers["/v1/models"] = response('{"data": [{"id": "other"}]}', "application/json")
        until(lambda: value(samples(engine.collect()), RUNNING, model="other") == 1, 10)


def test_an_api_that_hangs_does_not_hold_up_the_page_once_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palegreen.exporter.engines.facts._KEPT", 0.05)
    monkeypatch.setattr("palegreen.exporter.engines.facts._ASKED_AGAIN", 0.05)
    monkeypatch.setattr("palegreen.exporter.engines.facts._DEADLINE", 0.5)
    with Server({"/metrics": LLAMA, "/v1/models": MODELS}) as server:
        engine = source(server.url)
        engine.collect()
        server.answers["/v1/models"] = server.answers["/props"] = hang
        time.sleep(0.1)
        began = time.monotonic()
        for _ in range(5):
            engine.collect()
        assert time.monotonic() - began < 0.5, "less than one answer of the API may take"


def test_a_json_page_where_metrics_were_looked_for_is_read_once_and_not_again() -> None:
    consumed = response("[]", "application/json")
    with Server({"/prometheus/metrics": NOT_FOUND, "/metrics": consumed}) as server:
        engine = source(server.url)
        for _ in range(3):
            with pytest.raises(SourceError, match="return_perf_metrics"):
                engine.collect()
        assert server.paths.count("/metrics") == 1


def test_an_engine_is_found_on_a_server_that_answers_every_path_with_a_word() -> None:
    with Server({"/prometheus/metrics": response("OK"), "/metrics": response(VLLM_PAGE)}) as server:
        assert value(samples(source(server.url).collect()), RUNNING, engine="vllm") == 3


def refused(page: str) -> str:
    with Server({"/metrics": response(page)}) as server, pytest.raises(SourceError) as failure:
        source(server.url + "/metrics").collect()
    return str(failure.value)


HISTOGRAM = "# TYPE vllm:time_to_first_token_seconds histogram\n"


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        ("# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total -5\n", "negative"),
        ("# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total +Inf\n", "infinite"),
        (
            HISTOGRAM
            + 'vllm:time_to_first_token_seconds_bucket{le="1"} 5\n'
            + 'vllm:time_to_first_token_seconds_bucket{le="+Inf"} 3\n'
            + "vllm:time_to_first_token_seconds_sum 1\nvllm:time_to_first_token_seconds_count 3\n",
            "buckets that fall",
        ),
        (
            "# TYPE http_requests_total counter\n# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"
            + "".join(f'http_requests_total{{handler="/{i}",status="200"}} 1\n' for i in range(20_001)),
            "more than 20000 series",
        ),
        (
            '# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{running_lora_adapters="'
            + ",".join(f"a{i}" for i in range(5_000))
            + '",waiting_lora_adapters=""} 1\n',
            "more than 1000 names",
        ),
    ],
    ids=["negative counter", "infinite counter", "falling buckets", "too many series", "too many names"],
)
def test_a_page_that_would_spoil_the_exposition_or_fill_the_memory_is_refused(page: str, cause: str) -> None:
    assert cause in refused(page)


def test_the_replicas_behind_one_ray_agent_are_each_shown_with_what_they_have() -> None:
    def one(name: str, replica: str, number: int, more: str = "") -> str:
        kind = "counter" if name.endswith("_total") else "gauge"
        labels = f'ReplicaId="{replica}",model_name="{replica}"{more}'
        return f"# TYPE {name} {kind}\n{name}{{{labels}}} {number}\n"

    page = (
        one("ray_vllm_num_requests_running", "r1", 3)
        + one("ray_sglang_num_running_reqs", "r2", 5)
        + one("ray_vllm_prompt_tokens_by_source_total", "r1", 7, ',source="local_compute"')
        + one("ray_vllm_prompt_tokens_total", "r3", 9)
    )
    with Server({"/metrics": response(page)}) as server:
        found = samples(source(server.url + "/metrics").collect())
    assert value(found, RUNNING, model="r1") == 3
    assert value(found, RUNNING, model="r2") == 5
    tokens = "palegreen_engine_prompt_tokens_total"
    assert value(found, tokens, model="r1", source="computed") == 7
    assert value(found, tokens, model="r3", source="all") == 9


def test_a_triton_model_beside_one_on_the_vllm_backend_keeps_what_triton_says_of_it() -> None:
    page = (
        "# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{model="a",version="1"} 4\n'
        "# TYPE nv_trt_llm_request_metrics gauge\n"
        'nv_trt_llm_request_metrics{model="a",request_type="scheduled",version="1"} 4\n'
        'nv_trt_llm_request_metrics{model="b",request_type="scheduled",version="1"} 7\n'
    )
    with Server({"/metrics": response(page)}) as server:
        found = [s for s in samples(source(server.url + "/metrics").collect()) if s.name == RUNNING]
    assert {(s.labels["engine"], s.labels["model"]): s.value for s in found} == {("vllm", "a"): 4, ("triton", "b"): 7}


def mapping(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    done = run("node", "--once", "--no-nvml", "--engine-mappings", str(folder))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("rest", "cause"),
    [
        ('rename: [{match: "([", to: x}]\n', "is no replacement"),
        ('rename: [{match: "a", to: "\\\\9"}]\n', "is no replacement"),
        ('metrics: {palegreen_engine_batch_size: {first: [{from: x, versions: "==0.9"}]}}\n', "comparisons such as"),
        ("metrics: {palegreen_engine_batch_sizes: {first: [{from: x}]}}\n", "not a canonical metric"),
    ],
)
def test_an_engine_mapping_that_cannot_work_is_refused_with_its_file(rest: str, cause: str, tmp_path: Path) -> None:
    line = mapping(tmp_path / "mappings", "engine: mine\ntitle: Mine\nrecognise: {prefixes: [mine_]}\n" + rest)
    assert "mine.yaml" in line
    assert cause in line


def test_a_reload_that_meets_a_broken_mapping_keeps_the_old_one_and_later_takes_the_mended(tmp_path: Path) -> None:
    folder, file = tmp_path / "mappings", tmp_path / "node.yaml"
    folder.mkdir()
    file.write_text(f"engine_mappings: {folder}\n", encoding="utf-8")

    def value_of(daemon: Daemon) -> Any:
        return daemon.value("palegreen_config_last_reload_successful")

    with Daemon("--config", str(file)) as daemon:
        until(lambda: value_of(daemon) == 1, 10)
        (folder / "mine.yaml").write_text("engine: mine\n", encoding="utf-8")
        file.write_text(f"engine_mappings: {folder}\nengine_interval: 3s\n", encoding="utf-8")
        until(lambda: value_of(daemon) == 0, 10)
        until(lambda: len(daemon.events("config.refused")) == 1)
        (folder / "mine.yaml").unlink()
        file.write_text(f"engine_mappings: {folder}\nengine_interval: 4s\n", encoding="utf-8")
        until(lambda: value_of(daemon) == 1, 10)
