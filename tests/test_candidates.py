"""Candidate baselines after a declared deploy: fitted, never promoted by themselves, in force once they are."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from structlog.testing import capture_logs
from support.chatting import Evaluator
from support.daemon import run
from support.fitting import START, fitted, recorded
from support.samples import scored
from support.waiting import until

from palegreen.cli.main import main
from palegreen.evaluators.baseline import source
from palegreen.evaluators.baseline.prepare import NEEDED
from palegreen.evaluators.baseline.registry import current, promote, save
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.deploy import candidates
from palegreen.evaluators.deploy.candidates import Candidates
from palegreen.evaluators.deploy.deploys import Deploys
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.store import Store
from palegreen.evaluators.wire.jsonl import write

LATER = START + 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of baselines whose current one is of samples before LATER."""
    root = tmp_path_factory.mktemp("baselines")
    made = fitted(recorded(640), every="2000")
    promote(save(root, made.manifest, made.arrays).folder)
    return root


def later(n: int) -> list[Sample]:
    """Samples of another fingerprint, after a few of the one before."""
    before = recorded(5, seed=3, system_fingerprint="fp_one")
    after = recorded(n, seed=4, system_fingerprint="fp_two")
    return [replace(sample, time=LATER + 10 * at) for at, sample in enumerate([*before, *after])]


def lines(samples: list[Sample]) -> bytes:
    return b"".join(write(sample) + b"\n" for sample in samples)


def test_a_deploy_leads_to_a_candidate_which_a_person_promotes_while_the_evaluator_runs(
    folder: Path, tmp_path: Path
) -> None:
    first, path = current(folder), tmp_path / "samples.jsonl"
    path.write_bytes(lines(later(620)))
    kept = ("--file", str(path), "--store", str(tmp_path / "samples.db"))
    options = ("--embedder", "static", "--baseline", str(folder), "--candidate-samples", "600")
    with Evaluator("", *kept, *options) as evaluator:
        info, stale = "palegreen_baseline_info", "palegreen_baseline_stale"
        # long, since the fit gives way to whatever else the machine does
        (event,) = until(lambda: evaluator.events("baseline.candidate"), 900)
        assert "cause=system_fingerprint" in evaluator.events("deploy.declared")[0]
        (made,) = {each.parent.name for each in folder.glob("*/manifest.json")} - {first, "current"}
        assert f"baseline={made}" in event
        assert f'promote="palegreen baseline promote {folder}/{made}"' in event
        assert current(folder) == first
        assert json.loads((folder / made / "manifest.json").read_text())["since"] >= LATER + 50
        until(lambda: evaluator.value("palegreen_baseline_candidates") == 1, 20)
        assert evaluator.value(stale, reason="deploy") == 1
        promoted = run("baseline", "promote", str(folder / made))
        assert promoted.returncode == 0, promoted.stderr
        until(lambda: evaluator.value(info, baseline=made) == 1, 30)
        assert evaluator.value(stale, reason="deploy") == evaluator.value(stale, reason="mismatch") == 0
        until(lambda: evaluator.value("palegreen_baseline_candidates") == 0, 20)
        assert len(evaluator.events("baseline.candidate")) == 1
    promote(folder / first)


def looked(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged of baselines when a deploy was declared and there are a few looks."""
    monkeypatch.setattr(candidates, "_LOOK_EVERY", 0.01)
    deploys = Deploys(lambda: config, clock=lambda: LATER)

    async def looking() -> None:
        await deploys.posted(b"")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Candidates(lambda: config, deploys).run(), 0.5)

    with capture_logs() as logged:
        asyncio.run(looking())
    return [f"{line['event']}: {line['cause']}" for line in logged if line["event"].startswith("baseline.")]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "there is no baseline to be a candidate for"),
        ({"baseline": "FOLDER"}, "give --store"),
        ({"baseline": "FOLDER/current", "store": "STORE"}, "is one baseline; give the folder"),
    ],
)
def test_where_there_can_be_no_candidate_one_line_says_why(
    settings: dict[str, str],
    why: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = {"FOLDER": str(folder), "STORE": str(tmp_path / "samples.db")}
    given: dict[str, Any] = {}
    for key, value in settings.items():
        for place, path in places.items():
            value = value.replace(place, path)
        given[key] = value
    (said,) = looked(EvaluateConfig(file=tmp_path, **given), monkeypatch)
    assert said.startswith("baseline.no_candidate: ")
    assert why in said


def test_no_candidate_is_wanted_where_that_is_configured_or_while_samples_are_too_few(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "samples.db"
    store = Store(path, 1e12, 1 << 30)
    store.add([replace(scored(at), sample=sample) for at, sample in enumerate(later(20))])
    store.close()
    for wanted in (False, True):
        config = EvaluateConfig(file=tmp_path, baseline=folder, store=str(path), baseline_candidates=wanted)
        assert not looked(config, monkeypatch)
        path.with_name("samples.db.deploys.json").unlink(missing_ok=True)


def test_fewer_samples_than_a_baseline_needs_cannot_be_asked_for(tmp_path: Path) -> None:
    EvaluateConfig(file=tmp_path, candidate_samples=NEEDED)
    with pytest.raises(ValidationError):
        EvaluateConfig(file=tmp_path, candidate_samples=NEEDED - 1)


def test_a_fit_can_begin_at_a_time_and_a_store_s_own_time_stands_in_where_a_sample_has_none(tmp_path: Path) -> None:
    given = [replace(sample, id=f"r{at}") for at, sample in enumerate(later(20))]
    given[-1] = replace(given[-1], time=0.0)
    since = LATER + 150
    path, database = tmp_path / "samples.jsonl", tmp_path / "samples.db"
    path.write_bytes(lines(given))
    store = Store(database, 1e12, 1 << 30)
    store.add([replace(scored(), sample=sample) for sample in given])
    store.close()
    assert [sample.id for sample in source.samples(path, since)] == [f"r{at}" for at in range(15, 24)]
    assert [sample.id for sample in source.samples(database, since)] == [f"r{at}" for at in range(15, 25)]


@pytest.mark.parametrize(
    ("since", "said"),
    [("2023-11-16T02:00:00Z", "too few samples: 0 can be used"), ("soon", "--since: got 'soon'; allowed: a duration")],
)
def test_a_fit_from_a_time_on_says_what_is_wrong(tmp_path: Path, since: str, said: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(lines(recorded(20)))
    done = CliRunner().invoke(main, ["baseline", "fit", str(path), "--out", str(tmp_path / "out"), "--since", since])
    assert done.exit_code == 2
    assert said in done.stderr
