"""`palegreen samples`: list, show and export, and what they leave behind."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.dataset
import pytest
from support.daemon import environment
from support.samples import REFUSED, batch, scored

from palegreen.evaluators.store.export import writer
from palegreen.evaluators.store.query import Filter, Reader, StoreError
from palegreen.evaluators.store.store import Store

COMMAND = [sys.executable, "-m", "palegreen.cli.main", "samples"]
CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is\n2 + 2?"}]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "samples.db"
    with closing(Store(path, 1e9, 1 << 30)) as store:
        store.add(
            [
                scored(1, model="meta/llama", messages=CONVERSATION, trace_id="abc", response="It is 4.\x1b[2J"),
                scored(2, model="qwen", outcomes={"refusal": REFUSED}, response="I cannot.", time=1e9 + 86400),
                scored(3, model="qwen", sampled="kept", id="", time=time.time()),
            ]
        )
        yield path


def run(*arguments: str | Path, store: Path | None, columns: int = 100) -> subprocess.CompletedProcess[str]:
    env = environment({"COLUMNS": str(columns), **({"PALEGREEN_STORE": str(store)} if store else {})})
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def audited(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.with_name("samples.db.audit.jsonl").read_text().splitlines()]


def listed(path: Path, *arguments: str) -> list[str]:
    done = run("list", "--json", *arguments, store=path)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), "the audit's line of the log"
    return [sample["sample"] for sample in json.loads(done.stdout)]


def test_list_is_a_table_that_fits_the_terminal_with_the_newest_first(path: Path) -> None:
    done = run("list", store=path, columns=80)
    lines = done.stdout.splitlines()
    assert (done.returncode, audited(path)[-1]["command"]) == (0, "list")
    assert [line.split()[0] for line in lines] == ["SAMPLE", "@3", "@2", "@1"]
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["@2", "2001-09-10", "01:46:40", "qwen", "fail:", "refusal", "I", "cannot."]


def test_what_a_terminal_would_obey_is_not_printed(path: Path) -> None:
    assert "\x1b" not in run("list", store=path).stdout
    assert "\x1b" not in run("show", "r1", store=path).stdout


def test_list_takes_filters(path: Path) -> None:
    assert listed(path, "--failed") == ["@2"]
    assert listed(path, "--failed", "refusal", "--model", "qwen") == ["@2"]
    assert listed(path, "--sampled", "kept", "--since", "1h") == ["@3"]
    assert listed(path, "--until", "2001-09-10T00:00:00Z") == ["@1"]
    assert listed(path, "--since", "2001-09-10", "--limit", "1") == ["@3"]
    assert run("list", "--failed", "json", store=path).stderr.endswith("no sample matches\n")


def test_show_is_the_whole_sample_for_a_person_and_leaves_an_audit_line(path: Path) -> None:
    done = run("show", "r1", store=path)
    assert done.returncode == 0
    for part in ("meta/llama", "[system]\nBe brief.\n", "[user]\nWhat is\n2 + 2?\n", "[response]\nIt is 4."):
        assert part in done.stdout
    assert "pass  refusal              0.9" in done.stdout
    assert "does not apply: json" in done.stdout
    (line,) = audited(path)
    assert {"command": "show", "uid": os.getuid(), "id": "r1", "sample": "@1", "samples": 1}.items() <= line.items()
    assert stat.S_IMODE(path.with_name("samples.db.audit.jsonl").stat().st_mode) == 0o600
    assert "event=samples.show" in done.stderr
    assert "It is 4" not in done.stderr + path.with_name("samples.db.audit.jsonl").read_text()


@pytest.mark.parametrize(("name", "found"), [("@3", ""), ("abc", "r1"), ("r2", "r2")])
def test_show_takes_a_number_a_trace_id_and_a_response_id(path: Path, name: str, found: str) -> None:
    assert json.loads(run("show", name, "--json", store=path).stdout).get("id", "") == found


def test_export_writes_recorded_samples_with_scores_the_oldest_first(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("older")
    done = run("export", "--out", out, store=path)
    assert (done.returncode, done.stdout) == (0, "")
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["response"] for record in records] == ["It is 4.\x1b[2J", "I cannot.", "answer 3"]
    assert records[1]["scores"]["refusal"] == {"passed": False, "score": 0.1, "why": "says that it cannot help"}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert run("export", "--out", "-", store=path).stdout == out.read_text()
    assert [(line["samples"], line["out"]) for line in audited(path)] == [(3, str(out)), (3, "-")]


def test_export_takes_filters_and_the_audit_line_says_which(path: Path) -> None:
    done = run("export", "--out", "-", "--model", "qwen", "--failed", store=path)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["r2"]
    assert audited(path)[0]["filter"] == {"model": "qwen", "failed": ""}


def test_parquet_is_partitioned_by_date_and_model_and_exports_add_up(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "lake"
    for _ in range(2):
        done = run("export", "--out", out, "--format", "parquet", "--until", "2002-01-01", store=path)
        assert (done.returncode, done.stdout) == (0, "")
    names = sorted(str(folder.relative_to(out)) for folder in out.glob("*/*"))
    assert names == ["date=2001-09-09/model=meta%2Fllama", "date=2001-09-10/model=qwen"]
    rows = pyarrow.dataset.dataset(out, partitioning="hive").to_table().sort_by("time").to_pylist()
    assert [row["model"] for row in rows] == ["meta/llama", "meta/llama", "qwen", "qwen"]
    first = rows[0]
    assert (first["id"], first["time"], str(first["date"])) == ("r1", 1e9 + 1, "2001-09-09")
    assert [message["content"] for message in first["messages"]] == ["Be brief.", "What is\n2 + 2?"]
    assert first["scores"] == [{"check": "refusal", "passed": True, "score": 0.9, "why": None}]
    assert rows[2]["result"] == "fail"


def test_parquet_holds_every_field_of_a_recorded_sample(tmp_path: Path) -> None:
    call = {"name": "add", "arguments": '{"a": 1}', "id": "c1"}
    everything = {
        **{name: name for name in ("endpoint", "route", "replica", "session", "team", "trace_id", "reasoning")},
        **{name: name for name in ("finish_reason", "system_fingerprint", "tap", "requested_model", "error")},
        **dict.fromkeys(("mean_logprob", "ttft_seconds", "duration_seconds"), 0.5),
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "choice", "status", "reasoning_tokens"), 7),
        "cached_tokens": 3,
        "messages": [{"role": "assistant", "content": "", "tool_calls": [call]}],
        "tools": [{"name": "add", "parameters": {"type": "object"}}],
        "response_format": {"type": "json_object"},
        "contexts": ["one", "two"],
        "tool_calls": [call],
        "logprobs": [-0.5, -1.0],
        "labels": {"a": "b"},
        "sampled": "kept",
        "ended": "interrupted",
        "truncated": True,
    }
    path = tmp_path / "samples.db"
    with closing(Store(path, 1e9, 1 << 30)) as store:
        store.add([scored(1, **everything)])
        store.attach_feedback("r1", "thumbs_up")
    with Reader(path) as reader:
        record = reader.find("r1")[0].record
        writer("parquet", str(tmp_path / "lake"))(reader.chunks(Filter(), 1), str(tmp_path / "lake"))
    (row,) = pyarrow.dataset.dataset(tmp_path / "lake", partitioning="hive").to_table().to_pylist()
    assert record.keys() <= row.keys()
    for name in ("tools", "response_format"):
        row[name] = json.loads(row[name])
    row["labels"] = dict(row["labels"])
    (message,) = row["messages"]
    row["messages"] = [{name: value for name, value in message.items() if value is not None}]
    del record["scores"]
    assert {name: row[name] for name in record} == record


def test_an_export_to_a_bucket_appears_when_it_is_whole(path: Path) -> None:
    import fsspec

    bucket = fsspec.filesystem("memory")
    with Reader(path) as reader:
        for form, out in (("jsonl", "memory://lake/out.jsonl"), ("parquet", "memory://lake/parquet")):
            writer(form, out)(reader.chunks(Filter(), 3), out)
        assert len(bucket.cat("/lake/out.jsonl").splitlines()) == 3
        assert len(bucket.glob("/lake/parquet/*/*/*.parquet")) == 3


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_export_that_fails_leaves_what_was_there(path: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    with Reader(path) as reader:
        if form == "jsonl":
            out.write_text("older")

        def breaking() -> Iterator[list[object]]:
            yield reader.newest(Filter(), 9)
            raise StoreError("the disk is gone")

        with pytest.raises(StoreError, match="the disk is gone"):
            writer(form, str(out))(breaking(), str(out))
    assert {file.name for file in tmp_path.rglob("*")} - {"samples.db", "samples.db-wal", "samples.db-shm"} == {"out"}
    assert form == "parquet" or out.read_text() == "older"


def test_many_models_are_written_with_few_files_open(tmp_path: Path) -> None:
    path, out = tmp_path / "samples.db", tmp_path / "lake"
    with closing(Store(path, 1e9, 1 << 30)) as store:
        store.add([scored(number, model=f"model-{number % 50}") for number in range(100)])
        store.add([scored(100, model="x" * 300), scored(101, model="")])
    with Reader(path) as reader:
        writer("parquet", str(out))(reader.chunks(Filter(), 102), str(out))
    table = pyarrow.dataset.dataset(out, partitioning="hive").to_table()
    assert table.num_rows == 102
    assert {"_other_", "_none_"} <= set(table["model"].to_pylist())


def test_an_export_on_a_terminal_shows_how_far_it_is(path: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "export", "--out", str(tmp_path / "out.jsonl"), "--store", str(path)]
    done = subprocess.run(command, env=environment({"TERM": "xterm"}), stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "100%" in shown


def test_without_the_audit_line_nothing_is_shown_or_exported(path: Path, tmp_path: Path) -> None:
    path.with_name("samples.db.audit.jsonl").mkdir()
    out = tmp_path / "out.jsonl"
    for arguments in (["show", "r1"], ["export", "--out", str(out)], ["export", "--out", "-"]):
        done = run(*arguments, store=path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "so no sample is given out: Is a directory" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not out.exists()
    done = run("list", "--json", store=path)
    assert done.returncode == 0
    assert "texts are left out" in done.stderr
    assert {sample["preview"] for sample in json.loads(done.stdout)} == {""}


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["list", "--since", "yesterday"], 2, "--since: got 'yesterday'; allowed: a duration such as 90s"),
        (["export", "--until", "1x", "--out", "-"], 2, "--until: got '1x'; allowed: a duration such as 90s"),
        (["list", "--store", "missing.db"], 2, "--store missing.db: there is no such file"),
        (["list", "--store", "none"], 2, "no store: give --store FILE or the variable PALEGREEN_STORE"),
        (["list", "--store", __file__], 1, "file is not a database"),
        (["show", "r9"], 1, "there is no sample r9"),
        (["show", "@99999999999999999999"], 1, "there is no sample @99999999999999999999"),
        (["export", "--out", "/nonexistent/out.jsonl"], 1, "/nonexistent/out.jsonl: No such file or directory"),
        (["export", "--out", "s3://bucket/out.jsonl"], 1, "s3://bucket/out.jsonl: Install s3fs to access S3"),
        (["export", "--out", "nope://x"], 1, "nope://x: Protocol not known: nope"),
        (["export", "--out", "-", "--format", "parquet"], 1, "--format parquet makes a folder of files"),
        (["export", "--out", __file__, "--format", "parquet"], 1, "is a file; allowed: a folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(path: Path, arguments: list[str], status: int, line: str) -> None:
    done = run(*arguments, store=path)
    refusals = [said for said in done.stderr.splitlines() if said.startswith("palegreen: ")]
    assert (done.returncode, done.stdout, len(refusals)) == (status, "", 1)
    assert line in refusals[0]


def test_the_store_is_not_exported_over_itself(path: Path) -> None:
    before = path.stat().st_ino
    done = run("export", "--out", path, store=path)
    assert (done.returncode, done.stderr) == (2, f"palegreen: --out {path}: is the store itself\n")
    assert path.stat().st_ino == before


def test_no_store_given_is_one_line() -> None:
    done = run("list", store=None)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_large_export_is_read_a_chunk_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    with closing(Store(path, 1e9, 1 << 30)) as store:
        store.add(batch(9000))
        store.add(batch(40, 9000, response="x" * (1 << 20)))
    with Reader(path) as reader:
        sizes = [(len(chunk), sum(stored.size for stored in chunk)) for chunk in reader.chunks(Filter(), 1 << 40)]
    assert sum(rows for rows, _ in sizes) == 9040
    assert max(rows for rows, _ in sizes) <= 4096
    assert max(size for _, size in sizes) <= 18 << 20
