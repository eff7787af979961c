"""`--engine ray`: the same baseline and the same backtest as here, from workers of a local Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from support.fitting import recorded

from palegreen.cli.main import main
from palegreen.evaluators.baseline.engine import ENGINES, engine
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed import choose
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.export import writer
from palegreen.evaluators.store.query import Filter, Reader
from palegreen.evaluators.store.scored import Scored
from palegreen.evaluators.store.store import Store

# Some of Ray's own modules use what is deprecated in others of its modules.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'palegreen[ray]'", exc_type=ImportError)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """The address of a small Ray, which commands in this process are in already."""
    from palegreen.evaluators.baseline.cluster import ray  # which tells it first where to listen

    # Workers yield to all else by default, so that on a busy machine tests would wait.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_worker_niceness", "0")
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="CRITICAL",
        )
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def parquet(folder: Path, samples: Sequence[Sample], embedder: str = "ab" * 32) -> Path:
    """What `samples export --format parquet` writes of them, in row groups of 100."""
    database, columns = folder / "samples.db", folder / "parquet"
    with closing(Store(database, 1e12, 1 << 30)) as store:
        store.add([Scored(sample, {}, embedder) for sample in samples])
    with Reader(database) as reader:
        writer("parquet", str(columns))(reader.chunks(Filter(), len(samples)), str(columns))
    for file in columns.rglob("*.parquet"):
        pq.write_table(pq.ParquetFile(file).read(), file, row_group_size=100)
    return columns


def traffic(n: int, seed: int, **fields: str) -> list[Sample]:
    """Of two models, with things to redact in ids and texts, contexts, and samples that do not count."""
    samples = recorded(n, seed=seed, **fields)
    for at, sample in enumerate(samples):
        if at % 7 == 0:
            told = f"{sample.response} Write to someone{at}@example.com."
            samples[at] = replace(sample, response=told, session=f"user{at // 21}@example.com", model="other")
        elif at % 50 == 3:
            samples[at] = replace(sample, sampled="kept")
        elif at % 5 == 0:
            samples[at] = replace(sample, contexts=["Butter and salt.", sample.response])
    return samples


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def fit(path: Path, out: Path, *options: str) -> Result:
    return run("baseline", "fit", path, "--out", out, "--false-alarm-every", "2000", *options)


@pytest.mark.parametrize("name", ["static", "minilm"])
def test_vectors_are_the_same_to_the_bit_and_samples_in_the_same_order(tmp_path: Path, name: str) -> None:
    path = parquet(tmp_path, traffic(250, seed=1))
    embedder, settings = choose.embedder(name, 1), EvaluateConfig()
    assert embedder is not None
    found = []
    for on in ENGINES:
        with engine(on, embedder, settings) as working:
            samples = list(working.redacted(path))
            vectors = [vectors for batch in working.embedded(samples) for vectors in batch]
        kept = [(sample.id, sample.prompt, sample.response, sample.contexts, sample.sampled) for sample in samples]
        bits = [{part: vector.tobytes() for part, vector in each.items()} for each in vectors]
        hashed = [sample.session for sample in samples if sample.session.startswith("redacted-")]
        found.append((kept, bits, [hashed.index(session) for session in hashed]))
    assert found[0] == found[1]
    assert len(found[0][0]) == 250
    assert len(found[0][2]) > len(set(found[0][2])) > 1


def test_a_fit_and_a_backtest_on_ray_are_those_made_here(tmp_path: Path) -> None:
    path = parquet(tmp_path, traffic(700, seed=1))
    here, there = (fit(path, tmp_path / on, "--embedder", "static", "--engine", on) for on in ENGINES)
    assert (here.exit_code, there.exit_code) == (0, 0), here.output + there.output
    assert Path(here.stdout.strip()).name == Path(there.stdout.strip()).name
    assert here.stderr == there.stderr

    (tmp_path / "later").mkdir()
    later = parquet(tmp_path / "later", [*traffic(150, seed=2), *traffic(150, seed=3, response="I cannot help you.")])
    told = [run("backtest", later, "--baseline", tmp_path / "local", "--json", "--engine", on) for on in ENGINES]
    assert told[0].exit_code == 0, told[0].output
    assert told[0].output == told[1].output
    assert json.loads(told[0].stdout)["alarms"]


def both(tmp_path: Path, path: Path, *options: str) -> str:
    """The one line with which both engines refuse a fit."""
    here, there = (fit(path, tmp_path / "out", "--embedder", "static", "--engine", on) for on in ENGINES)
    assert (here.exit_code, there.exit_code) == (2, 2), here.output + there.output
    assert here.stderr == there.stderr
    assert here.stderr.count("\n") == 1
    return here.stderr


def test_what_a_worker_refuses_is_told_as_here_and_the_first_of_it(tmp_path: Path) -> None:
    path = parquet(tmp_path, recorded(640))
    [file] = path.rglob("*.parquet")
    rows = pq.ParquetFile(file).read().to_pylist()
    for row in (*rows[250:260], *rows[500:510]):
        row["ended"] = "soon"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file, row_group_size=100)
    assert f"{file.name}:row 251: ended: is not valid" in both(tmp_path, path)


def test_two_embedders_and_too_few_samples_are_refused_as_here(tmp_path: Path) -> None:
    few = parquet(tmp_path, recorded(20))
    assert "20 can be used" in both(tmp_path, few)
    (tmp_path / "other").mkdir()
    other = parquet(tmp_path / "other", recorded(20, model="z"), "cd" * 32)
    next(other.glob("date=*/model=z")).rename(next(few.glob("date=*")) / "model=z")
    assert "scored by the embedder cdcdcdcdcdcd, " in both(tmp_path, few)


def test_lines_are_refused_in_one_line_by_ray(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"response": "a"}\n')
    refused = fit(path, tmp_path / "out", "--engine", "ray")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "samples.jsonl: --engine ray reads Parquet alone" in refused.stderr


def test_the_cluster_of_the_environment_is_joined_without_a_word_of_rays(tmp_path: Path, cluster: str) -> None:
    path = parquet(tmp_path, recorded(20))
    arguments = ("baseline", "fit", str(path), "--out", str(tmp_path / "out"), "--embedder", "static")
    done = subprocess.run(
        [sys.executable, "-m", "palegreen.cli.main", *arguments, "--engine", "ray"],
        env={**os.environ, "RAY_ADDRESS": cluster},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "palegreen: too few samples: 20 can be used; needed: 600, 580 more\n"


def test_ray_is_imported_by_who_asks_for_it_alone_and_its_absence_is_one_line(tmp_path: Path) -> None:
    path = parquet(tmp_path, recorded(20))
    program = "import sys; sys.modules['ray'] = None; from palegreen.cli.main import main; main(sys.argv[1:])"
    arguments = ("baseline", "fit", str(path), "--out", str(tmp_path / "out"), "--embedder", "static", "--engine")
    local, absent = (
        subprocess.run([sys.executable, "-c", program, *arguments, on], capture_output=True, text=True)
        for on in ("local", "ray")
    )
    assert "20 can be used" in local.stderr
    assert absent.returncode == 2
    assert absent.stderr == "palegreen: --engine ray needs the package ray: pip install 'palegreen[ray]'\n"
