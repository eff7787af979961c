"""The evaluator as its processes: whatever happens to the scorer, clients get what upstream sent; each loss counts."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest
from support.chatting import Chat, Evaluator, answer, write
from support.daemon import run
from support.waiting import until


@pytest.fixture
def chat() -> Iterator[Chat]:
    with Chat() as chat:
        yield chat


def ask_many(evaluator: Evaluator, count: int, prefix: str = "q") -> None:
    """Ask in parallel; each answer must be, to the byte, what upstream says to that question."""

    def one(number: int) -> None:
        question = f"{prefix} {number}"
        assert evaluator.ask(question) == (200, answer(question))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_response_is_passed_on_scored_counted_and_kept(chat: Chat, tmp_path: Path) -> None:
    store = tmp_path / "samples.db"
    with Evaluator(chat.url, "--endpoint", "chat", "--store", str(store)) as evaluator:
        evaluator.child("scorer")
        question = "Is my address anna@example.org known?"
        assert evaluator.ask(question) == (200, answer(question))
        until(lambda: evaluator.total("quality_samples_total", result="pass", model="small", endpoint="chat") == 1, 20)
        assert evaluator.total("quality_checks_total", check="empty", result="pass") == 1
        assert evaluator.total("redactions_total", kind="email") >= 1
        assert evaluator.total("proxy_requests_total", code="2xx", ended="complete") == 1
        assert evaluator.total("quality_tokens_total", direction="output") == 15
        exposed = evaluator.get()[2].decode()
    listed = run("samples", "export", "--store", str(store), "--out", "-")
    record = json.loads(listed.stdout)
    assert record["messages"][0]["content"] == "Is my address [EMAIL] known?"
    assert "anna@example.org" not in listed.stdout + exposed
    assert "anna" not in exposed


def test_without_a_store_no_text_is_written_anywhere(chat: Chat, tmp_path: Path) -> None:
    with Evaluator(chat.url, env={"TMPDIR": str(tmp_path)}) as evaluator:
        ask_many(evaluator, 5, "secret word")
        until(lambda: evaluator.total("quality_samples_total") == 5, 20)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in files if b"secret word" in path.read_bytes()]


def test_a_killed_scorer_costs_no_client_a_byte_and_no_sample(chat: Chat) -> None:
    with Evaluator(chat.url) as evaluator:
        for _ in range(3):
            pid = evaluator.child("scorer")
            load = Thread(target=ask_many, args=(evaluator, 100))
            load.start()
            os.kill(pid, signal.SIGKILL)
            load.join()
            until(lambda pid=pid: evaluator.child("scorer") != pid, 20)
            until(lambda: evaluator.total("tap_queue_records") == 0, 20)  # a record that meets two kills is given up
        until(lambda: evaluator.accounted()[0] == 300, 20)
        # Counts of a killed process are gone with it, at most those of its last second; nothing may be dropped.
        assert evaluator.total("tap_dropped_total") == 0
        assert evaluator.total("evaluator_restarts_total", process="scorer", reason="killed") == 3
        ask_many(evaluator, 1, "afterwards")
        until(lambda: evaluator.total("quality_samples_total") >= 1, 20)


def test_a_scorer_that_is_stopped_is_found_silent_and_started_again(chat: Chat) -> None:
    with Evaluator(chat.url, "--scorer-timeout", "2s") as evaluator:
        pid = evaluator.child("scorer")
        os.kill(pid, signal.SIGSTOP)
        ask_many(evaluator, 50)
        until(lambda: evaluator.total("evaluator_restarts_total", process="scorer", reason="silent") == 1, 20)
        assert gone(pid)
        until(lambda: evaluator.accounted() == (50, 50, 0), 20)


def test_what_a_full_queue_cannot_take_is_dropped_and_counted_and_memory_stays(chat: Chat) -> None:
    with Evaluator(chat.url, "--queue-limit", "64KiB", "--scorer-timeout", "4s") as evaluator:
        os.kill(evaluator.child("scorer"), signal.SIGSTOP)
        ask_many(evaluator, 200)
        until(lambda: evaluator.total("tap_dropped_total", tap="proxy", reason="queue_full") > 50, 20)
        assert evaluator.total("tap_queue_bytes") <= 64 << 10
        until(lambda: evaluator.total("evaluator_restarts_total", reason="silent") == 1, 20)

        def adds_up() -> bool:
            received, scored, lost = evaluator.accounted()
            return (received, scored + lost) == (200, 200)

        until(adds_up, 20)


def test_a_scorer_that_grows_beyond_its_limit_is_started_again_and_serving_goes_on(chat: Chat) -> None:
    with Evaluator(chat.url, "--scorer-memory-limit", "64MiB") as evaluator:
        until(lambda: evaluator.total("evaluator_restarts_total", process="scorer", reason="memory") >= 1, 30)
        ask_many(evaluator, 20)


def test_a_record_that_kills_every_scorer_is_dropped_after_the_second_and_the_others_are_scored(
    chat: Chat, tmp_path: Path
) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os\ndef check(view):\n    if 'deadly' in view.prompt:\n        os._exit(1)\n"
    )
    installed = tmp_path / "deadly-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[palegreen.checks]\ndeadly = deadly:check\n")
    with Evaluator(chat.url, env={"PYTHONPATH": str(tmp_path)}) as evaluator:
        evaluator.child("scorer")
        ask_many(evaluator, 5, "before")
        evaluator.ask("a deadly question")
        ask_many(evaluator, 5, "after")
        until(lambda: evaluator.total("tap_dropped_total", reason="scorer_died") == 1, 40)
        assert evaluator.total("evaluator_restarts_total", process="scorer", reason="exited") == 2
        ask_many(evaluator, 1, "much later")
        until(lambda: evaluator.total("quality_samples_total") >= 1, 20)


def test_a_tap_process_that_dies_is_back_on_the_same_port(chat: Chat) -> None:
    with Chat() as upstream:
        with Evaluator(upstream.url) as probe:
            port = probe.proxy
        with Evaluator(upstream.url, "--proxy-address", f"127.0.0.1:{port}") as evaluator:
            os.kill(evaluator.child("tap"), signal.SIGKILL)
            until(lambda: len(evaluator.events("tap.ready")) == 2, 20)
            ask_many(evaluator, 3)
            assert evaluator.total("evaluator_restarts_total", process="tap", reason="killed") == 1


def test_errors_are_kept_whatever_the_rate_and_enter_no_rate(chat: Chat) -> None:
    with Evaluator(chat.url, "--sample-rate", "0") as evaluator:
        evaluator.child("scorer")
        ask_many(evaluator, 5)
        assert evaluator.ask("fail")[0] == 500
        until(lambda: evaluator.total("quality_samples_total", sampled="kept", result="fail") == 1, 20)
        assert evaluator.total("quality_kept_checks_total", check="error", result="fail") == 1
        assert evaluator.total("quality_checks_total") == 0
        assert evaluator.total("tap_unsampled_total", tap="proxy", reason="rate") == 5


def test_a_response_under_way_is_finished_before_the_evaluator_ends(chat: Chat) -> None:
    with Evaluator(chat.url) as evaluator, ThreadPoolExecutor(1) as pool:
        evaluator.child("scorer")
        asked = pool.submit(evaluator.ask, "wait")
        until(lambda: evaluator.total("proxy_connections") == 1, 20)
        evaluator.signal(signal.SIGTERM)
        until(lambda: not asked.done() and not listening(evaluator.proxy), 20)
        chat.go.set()
        assert asked.result() == (200, answer("wait"))
        assert evaluator.wait(20) == 0


def listening(port: int) -> bool:
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()


def test_the_children_end_when_the_evaluator_is_killed(chat: Chat) -> None:
    with Evaluator(chat.url) as evaluator:
        children = [evaluator.child("tap"), evaluator.child("scorer")]
        os.kill(evaluator.pid, signal.SIGKILL)
        until(lambda: all(gone(pid) for pid in children), 20)


def test_a_changed_configuration_starts_the_scorer_again_and_a_bad_one_leaves_all_as_it_was(
    chat: Chat, tmp_path: Path
) -> None:
    path = write(tmp_path / "evaluate.yaml", endpoint="chat")
    with Evaluator(chat.url, "--config", str(path)) as evaluator:
        first = evaluator.child("scorer")
        write(path, endpoint="chat", checks={"empty": {"enabled": False}})
        second = until(lambda: evaluator.child("scorer") != first and evaluator.child("scorer"), 20)
        ask_many(evaluator, 1)
        until(lambda: evaluator.total("quality_checks_total", check="truncated") == 1, 20)
        assert evaluator.total("quality_checks_total", check="empty") == 0
        for bad in ({"checks": {"emtpy": {}}}, {"sample_rat": 1}):
            write(path, **bad)
            until(lambda: evaluator.total("config_last_reload_successful") == 0, 20)
            ask_many(evaluator, 1)
            write(path, endpoint="chat", checks={"empty": {"enabled": False}})
            until(lambda: evaluator.total("config_last_reload_successful") == 1, 20)
        assert "emtpy" in evaluator.events("config.refused")[0]
        assert evaluator.child("scorer") != second


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ((), 2, "no tap: give at least one of"),
        (("--upstream", "ftp://x"), 2, "--upstream: got 'ftp://x'"),
        (("--sink-address", "127.0.0.1:99999"), 2, "is not an address"),
        (("--upstream", "http://127.0.0.1:1", "--embedder", "word2vec"), 2, "there is no embedder 'word2vec'"),
        (("--file", "/nowhere/samples.jsonl", "--no-follow"), 2, "/nowhere/samples.jsonl"),
        (("--upstream", "http://127.0.0.1:1", "--baseline", "/nowhere"), 2, "/nowhere/manifest.json: cannot be read"),
        (("--upstream", "http://127.0.0.1:1", "--sample-rate", "2"), 2, "--sample-rate"),
        (("--upstream", "http://localhost:9", "--proxy-address", "0.0.0.0:9"), 2, "upstream is the proxy itself"),
        (("--upstream", "http://127.0.0.1:1", "--store", "/nowhere/samples.db"), 2, "/nowhere is not a folder"),
        (("--upstream", "http://127.0.0.1:1", "--scorer-timeout", "100ms"), 2, "--scorer-timeout"),
        (("--upstream", "http://127.0.0.1:1", "--session-header", "x y"), 2, "--session-header"),
    ],
)
def test_what_cannot_begin_says_why_in_one_line(arguments: tuple[str, ...], status: int, line: str) -> None:
    proxy = ("--proxy-address", "127.0.0.1:0")
    ended = run("evaluate", "--listen-address", "127.0.0.1:0", "--embedder", "none", *proxy, *arguments)
    said = [each for each in ended.stderr.splitlines() if each.startswith("palegreen: ")]
    assert (ended.returncode, len(said)) == (status, 1), ended.stderr
    assert line in said[0]
    assert "Traceback" not in ended.stderr


def test_an_address_that_is_taken_is_one_line_and_nothing_is_left_running(chat: Chat) -> None:
    taken = chat.url.rpartition("/")[2]
    addresses = ("--listen-address", "127.0.0.1:0", "--proxy-address", taken)
    ended = run("evaluate", "--upstream", "http://127.0.0.1:1", *addresses)
    assert ended.returncode == 1
    assert f"cannot listen on {taken}" in ended.stderr


def test_what_clients_ask_for_and_do_not_get_is_no_label_and_long_names_do_no_harm(chat: Chat) -> None:
    with Evaluator(chat.url, "--sample-rate", "1") as evaluator:
        evaluator.child("scorer")
        for _ in range(3):
            evaluator.ask("fail")
        until(lambda: evaluator.total("quality_samples_total", result="fail") == 3, 20)
        assert {s.labels["model"] for s in evaluator.samples() if s.name == "palegreen_quality_samples_total"} == {""}


def test_a_stop_and_the_end_of_a_file_log_no_traceback(chat: Chat) -> None:
    with Evaluator(chat.url) as evaluator:
        evaluator.child("scorer")
        evaluator.signal(signal.SIGTERM)
        assert evaluator.wait(20) == 0
        assert not [line for line in evaluator.log if "Traceback" in line or "level=error" in line]


def test_a_file_is_scored_once_and_then_the_evaluator_ends(tmp_path: Path) -> None:
    lines = [json.dumps({"response": f"Answer number {n}.", "model": "m", "id": f"s{n}"}) for n in range(500)]
    (tmp_path / "samples.jsonl").write_text("\n".join([*lines, "this is no JSON"]) + "\n")
    arguments = ("--file", str(tmp_path / "samples.jsonl"), "--no-follow", "--store", str(tmp_path / "samples.db"))
    ended = run("evaluate", "--listen-address", "127.0.0.1:0", "--embedder", "none", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "samples.jsonl:501" in ended.stderr
    with sqlite3.connect(tmp_path / "samples.db") as store:
        assert store.execute("SELECT count(*) FROM samples").fetchone() == (500,)


def test_a_baseline_of_another_embedder_is_said_shown_and_not_used(chat: Chat, tmp_path: Path) -> None:
    manifest = {"format": 1, "samples": 1000, "created": 1, "embedder": {"name": "minilm", "digest": "ab" * 32}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"quantiles": {"words": {"0.5": 1}}}))
    with Evaluator(chat.url, "--baseline", str(tmp_path)) as evaluator:
        evaluator.child("scorer")
        assert "minilm (abababababab), this evaluator's is none" in evaluator.events("baseline.unusable")[0]
        ask_many(evaluator, 1)
        until(lambda: evaluator.total("quality_checks_total", check="length", result="skipped") == 1, 20)
        assert evaluator.total("baseline_mismatch") == 1


def test_the_status_page_and_readiness_tell_of_both_processes(chat: Chat) -> None:
    with Evaluator(chat.url) as evaluator:
        evaluator.child("scorer")
        assert until(lambda: evaluator.get("/readyz")[0] == 200, 20)
        page = evaluator.get("/")[2].decode()
        assert ">tap<" in page
        assert ">scorer<" in page
        os.kill(evaluator.child("scorer"), signal.SIGKILL)
        until(lambda: evaluator.get("/readyz")[0] == 503, 20)


def test_a_child_that_is_started_by_hand_says_that_it_is_one() -> None:
    child = subprocess.run(
        [sys.executable, "-m", "palegreen.evaluators.scorer"],
        input=b"", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"child process of palegreen evaluate" in child.stderr
