"""A folder of baselines: written whole or not at all, unchanged since, promoted with a line, compared in words."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.fitting import Embedder, fitted, recorded

from palegreen.evaluators.baseline.compare import compare
from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.features import Features
from palegreen.evaluators.baseline.fit import Fitted
from palegreen.evaluators.baseline.manifest import Manifest, load, mismatch
from palegreen.evaluators.baseline.registry import arrays_of, current, promote, save
from palegreen.evaluators.baseline.render import page
from palegreen.evaluators.store.audit import AuditError
from palegreen.runtime.yamlfile import ConfigError


@cache
def made(seed: int = 0) -> Fitted:
    return fitted(recorded(700), seed=seed)


def saved(root: Path, seed: int = 0) -> Path:
    return save(root, made(seed).manifest, made(seed).arrays).folder


def test_a_baseline_is_named_by_its_contents_and_reads_back_as_it_was(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert load(folder).id == folder.name
    assert load(folder).model_copy(update={"id": "", "arrays": ""}) == made().manifest
    arrays = arrays_of(folder)
    assert all(np.array_equal(arrays[name], array) for name, array in made().arrays.items())
    assert Features(arrays).clusters == load(folder).geometry["clusters"]


def test_the_same_fit_at_another_time_is_the_same_baseline_and_another_seed_is_not(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    later = made().manifest.model_copy(update={"created": 2e9})
    assert save(tmp_path, later, made().arrays) == (folder, True)
    assert saved(tmp_path, seed=1) != folder


def test_a_folder_that_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="file: cannot be written: Not a directory"):
        saved(tmp_path / "file")
    with pytest.raises(BaselineError, match="is itself a baseline"):
        saved(saved(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def change_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"samples": 1}))


def change_arrays(folder: Path) -> None:
    path = folder / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (change_manifest, "manifest.json: was changed after the fit"),
        (change_arrays, "arrays.npz: is not what manifest.json is of"),
        (lambda folder: (folder / "arrays.npz").unlink(), "arrays.npz: cannot be read: No such file"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: Invalid JSON"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: cannot be read: No such file"),
    ],
)
def test_a_baseline_that_is_damaged_is_neither_read_nor_promoted(
    tmp_path: Path, change: Callable[[Path], None], line: str
) -> None:
    folder = saved(tmp_path)
    change(folder)
    with pytest.raises(ConfigError, match=line):
        arrays_of(folder)
    with pytest.raises(ConfigError, match=line):
        promote(folder)
    assert current(tmp_path) == ""


def test_promotion_changes_what_the_folder_stands_for_and_leaves_an_audit_line(tmp_path: Path) -> None:
    first, second = saved(tmp_path), saved(tmp_path, seed=1)
    assert promote(first) == ""
    assert promote(second) == first.name
    assert load(tmp_path).id == current(tmp_path) == second.name
    assert (tmp_path / "current").readlink() == Path(second.name), "the folder can be moved as a whole"
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["baseline"], line["instead_of"]) for line in lines] == [
        (first.name, ""),
        (second.name, first.name),
    ]
    assert {(line["command"], line["uid"]) for line in lines} == {("promote", os.getuid())}
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_without_the_audit_line_nothing_is_promoted(tmp_path: Path) -> None:
    first, second = saved(tmp_path), saved(tmp_path, seed=1)
    promote(first)
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(AuditError, match="so nothing is promoted"):
        promote(second)
    assert current(tmp_path) == first.name
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_promoted_is_one_baseline_by_its_own_name(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    promote(folder)
    with pytest.raises(BaselineError, match="holds many baselines"):
        promote(tmp_path)
    renamed = folder.rename(tmp_path / "best")
    with pytest.raises(BaselineError, match="is not named by its id"):
        promote(renamed)


def test_another_embedder_is_told_in_words() -> None:
    class Other(Embedder):
        name, digest = "other", "0b" * 32

    assert mismatch(made().manifest, Embedder()) == ""
    assert "is of the embedder fake (fafafafafafa), this evaluator's is other (0b0b0b" in mismatch(
        made().manifest, Other()
    )


def compared(one: Fitted, other: Fitted) -> list[str]:
    return compare(one.manifest, other.manifest, (one.arrays, other.arrays))


def test_baselines_of_the_same_samples_do_not_differ() -> None:
    assert compared(made(), made()) == []


def test_new_samples_of_the_same_kind_do_not_differ_beyond_chance() -> None:
    assert compared(made(), fitted(recorded(700, seed=8))) == []


def test_what_differs_is_said_in_words_and_figures() -> None:
    samples = [
        replace(sample, finish_reason="length" if at % 5 == 0 else "stop", model="qwen")
        for at, sample in enumerate(recorded(800, seed=8, words=(60, 90)))
    ]
    samples += [sample for sample in recorded(900, seed=9, model="qwen") if sample.prompt.endswith("code.")]
    lines = compared(made(), fitted(samples, every="50000"))
    assert any(line.startswith("words: median ") for line in lines)
    assert any(line.startswith("check truncated: fails 0.00% of ") for line in lines)
    assert any(line.startswith("prompts: their mean vector moved by 0.") for line in lines)
    assert "models: llama -> qwen" in lines
    assert "run length declared: 20000 (20000 samples) -> 50000 (50000 samples)" in lines


def test_baselines_of_different_embedders_are_not_compared_by_vectors() -> None:
    class Other(Embedder):
        name, digest, dimensions = "other", "0b" * 32, 16

    lines = compared(made(), fitted(recorded(700), embedder=Other()))
    assert "their vectors cannot be compared: they are of different embedders" in lines
    assert not any("mean vector" in line for line in lines)


def test_a_page_tells_a_person_what_a_baseline_is() -> None:
    shown = page(made().manifest, made().manifest.created + 86400)
    assert "1.0 days ago" in shown
    assert "20000 samples (20000 samples of all replicas together), 1 replica(s)" in shown
    assert "fake (fafafafafafa)" in shown


def test_a_manifest_without_a_fit_can_be_shown() -> None:
    assert page(Manifest(format=1, samples=3, created=0), 0).startswith("baseline   without an id")
