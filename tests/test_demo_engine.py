"""A real llama.cpp server, and traffic whose token sums are exact."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from palegreen.demo import engine
from palegreen.demo.engine import EngineError, LlamaServer
from palegreen.demo.traffic import Totals, Traffic

REASON = engine.available()
needs_engine = pytest.mark.skipif(REASON is not None, reason=REASON or "")


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    if REASON is not None:
        pytest.skip(REASON)
    with LlamaServer().start(slots=2, threads=2) as running:
        yield running


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode())


def _metric(server: LlamaServer, name: str) -> float:
    lines = _get(f"{server.url}/metrics").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"llamacpp:{name} "))


def _until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_the_server_answers_a_chat_completion(server: LlamaServer) -> None:
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    assert answer["choices"][0]["message"]["content"]
    assert 1 <= answer["usage"]["completion_tokens"] <= 8


def test_the_model_is_named_without_a_path(server: LlamaServer) -> None:
    models = json.loads(_get(f"{server.url}/v1/models"))
    assert models["data"][0]["id"] == "SmolLM2-135M-Instruct"


def test_the_tokens_that_traffic_sums_are_those_that_the_engine_counted(server: LlamaServer) -> None:
    before = [_metric(server, name) for name in ("tokens_predicted_total", "prompt_tokens_total")]
    with Traffic(server.url, concurrency=2, max_requests=12, max_tokens=12) as traffic:
        assert traffic.wait(120)
        totals = traffic.totals()
    assert (totals.sent, totals.ok, totals.failed, totals.without_usage) == (12, 12, 0, 0), totals
    assert 12 <= totals.completion_tokens <= 12 * 12

    def counted() -> list[float]:
        after = [_metric(server, name) for name in ("tokens_predicted_total", "prompt_tokens_total")]
        return [now - then for now, then in zip(after, before, strict=True)]

    # The engine counts a prompt's tokens as processed only where its prefix cache did not have them.
    expected = [totals.completion_tokens, totals.prompt_tokens - totals.cached_tokens]
    assert _until(lambda: counted() == expected), (counted(), totals)


@needs_engine
def test_stop_ends_the_process_and_removes_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: list[str] = []
    server = LlamaServer(progress=said.append).start()
    pid = server.pid
    assert pid is not None
    assert _is_alive(pid)
    assert said[0] == "llama-server: loading SmolLM2-135M-Instruct.Q4_1.gguf"
    assert f"ready at {server.url}" in said[-1]
    server.stop()
    server.stop()
    assert not _is_alive(pid)
    assert server.pid is None
    assert list(tmp_path.iterdir()) == []


@needs_engine
def test_the_server_outlives_the_thread_that_started_it() -> None:
    server = LlamaServer()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        time.sleep(0.2)
        assert server.pid is not None, "the kernel's parent-death signal follows the thread that forked"
    finally:
        server.stop()


@needs_engine
def test_the_server_does_not_outlive_a_demo_that_was_killed() -> None:
    program = (
        "import time; from palegreen.demo.engine import LlamaServer; s = LlamaServer().start(); "
        "print(s.pid, s._log, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        pid, log = demo.stdout.readline().split()
        assert _is_alive(int(pid))
        demo.send_signal(signal.SIGKILL)
    Path(log).unlink()
    assert _until(lambda: not _is_alive(int(pid)))


@needs_engine
@pytest.mark.parametrize("exists", [False, True])
def test_a_bad_model_is_one_clear_error(tmp_path: Path, exists: bool) -> None:
    model = tmp_path / "model.gguf"
    if exists:
        model.write_bytes(b"not a model")
    server = LlamaServer(log=tmp_path / "log")
    with pytest.raises(EngineError) as caught:
        server.start(model=model)
    message = str(caught.value)
    assert "\n" not in message
    expected = "llama-server exited with 1 while starting; its log ends:" if exists else "there is no model file at"
    assert message.startswith(expected)
    assert str(model) in message
    assert server.pid is None


@needs_engine
def test_a_port_that_is_taken_is_an_error_and_not_shared_with_its_owner(server: LlamaServer) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(EngineError, match=f"cannot listen on 127.0.0.1:{port}"):
        LlamaServer().start(port=port)


def test_a_machine_that_the_wheel_has_no_build_for_is_told_to_bring_an_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    reason = engine.available()
    assert reason is not None
    assert "riscv64" in reason
    assert "make run ENGINE=URL" in reason


class _Stub(ThreadingHTTPServer):
    """An OpenAI-compatible server that remembers what it said."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, mode: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.numbers = itertools.count(1)
        self.streamed = self.plain = self.prompt = self.completion = 0
        self.lock = threading.Lock()
        self.release = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client may hang up, which is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Stub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name in the base class
        pass

    def do_GET(self) -> None:
        self._send(200, b'{"data": [{"id": "stub"}]}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "stub"
        with self.server.lock:
            number = next(self.server.numbers)
            usage = {"prompt_tokens": 10 + number, "completion_tokens": 3 * number}
            if self.server.mode == "":
                self.server.prompt += usage["prompt_tokens"]
                self.server.completion += usage["completion_tokens"]
                self.server.streamed += bool(body.get("stream"))
                self.server.plain += not body.get("stream")
        if self.server.mode == "hang":
            self.server.release.wait(30)
        if self.server.mode == "broken":
            self._send(*[(500, b"oops"), (200, b"[]"), (200, b'{"error": "no"}'), (200, b"\xff{")][number % 4])
        elif self.server.mode == "silent":
            self._send(200, b'{"choices": [{}]}')
        elif body.get("stream"):
            assert body["stream_options"] == {"include_usage": True}
            chunks = [
                {"choices": [{"delta": {"content": "a"}}], "usage": None},
                {"choices": [], "usage": usage},
            ]
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            end = "" if self.server.mode == "cut" else "data: [DONE]\n\n"
            self._send(200, "".join([": keep-alive\n\n", *events, end]).encode())
        else:
            self._send(200, json.dumps({"choices": [{}], "usage": usage}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def _stub(mode: str = "") -> Iterator[tuple[_Stub, str]]:
    with _Stub(mode) as stub:
        thread = threading.Thread(target=stub.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield stub, f"http://127.0.0.1:{stub.server_address[1]}"
        finally:
            stub.release.set()
            stub.shutdown()
            thread.join()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_sums_are_those_of_the_answers_streamed_or_not(suffix: str) -> None:
    with (
        _stub() as (stub, url),
        Traffic(url + suffix, concurrency=3, max_requests=40, stream_share=0.25) as t,
    ):
        assert t.wait(30)
        assert t.totals() == Totals(sent=40, ok=40, prompt_tokens=stub.prompt, completion_tokens=stub.completion)
        assert (stub.streamed, stub.plain) == (10, 30)


def test_an_answer_without_usage_is_counted_as_such() -> None:
    with _stub("silent") as (_, url), Traffic(url, max_requests=3, stream_share=0) as traffic:
        assert traffic.wait(30)
        assert traffic.totals() == Totals(sent=3, ok=3, without_usage=3)


@pytest.mark.parametrize(("mode", "share"), [("broken", 0.0), ("cut", 1.0)])
def test_whatever_a_server_answers_is_a_failure_and_not_the_end_of_the_worker(mode: str, share: float) -> None:
    with _stub(mode) as (_, url), Traffic(url, concurrency=4, max_requests=4, stream_share=share) as traffic:
        assert traffic.wait(30)
        totals = traffic.totals()
    assert (totals.sent, totals.ok, totals.failed) == (4, 0, 4)
    assert totals.last_error


def test_a_server_that_is_not_there_is_an_error_to_read_and_not_to_catch() -> None:
    with _stub() as (_, url):
        pass
    with Traffic(url) as traffic:
        assert _until(lambda: "refused" in traffic.totals().last_error)
    assert traffic.totals().sent == 0
    assert not traffic.running


def test_stopping_abandons_a_request_under_way_and_the_totals_are_final() -> None:
    with _stub("hang") as (stub, url):
        traffic = Traffic(url, concurrency=3).start()
        assert _until(lambda: traffic.totals().sent == 3)
        traffic.stop()
        assert not traffic.running
        totals = traffic.totals()
        stub.release.set()
        assert totals == traffic.totals() == Totals(sent=3)


def test_the_rate_bounds_all_workers_together() -> None:
    with _stub() as (_, url), Traffic(url, concurrency=4, requests_per_second=0.01) as traffic:
        assert _until(lambda: traffic.totals().ok == 1)
        time.sleep(0.3)
        assert traffic.totals().sent == 1


@pytest.mark.parametrize("url", ["", "ftp://host", "http://"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        Traffic(url)


def test_the_recorded_exposition_holds_no_path_of_the_machine_that_recorded_it() -> None:
    text = Path(__file__).with_name("captures").joinpath("engines/llamacpp-real.prom").read_text(encoding="utf-8")
    assert os.sep not in text.replace("tokens/s", "")
