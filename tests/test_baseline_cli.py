"""`palegreen baseline`: fit, show, compare and promote, from what people type to what they are told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from support.fitting import recorded

from palegreen.cli.main import main
from palegreen.evaluators.baseline import source
from palegreen.evaluators.baseline.manifest import load
from palegreen.evaluators.baseline.registry import arrays_of
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.export import writer
from palegreen.evaluators.store.query import Filter, Reader
from palegreen.evaluators.store.scored import Scored
from palegreen.evaluators.store.store import Store
from palegreen.evaluators.wire.jsonl import write


@cache
def samples() -> tuple[Sample, ...]:
    return tuple(recorded(640))


def file_of(folder: Path, some: Sequence[Sample], name: str = "samples.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"".join(write(sample) + b"\n" for sample in some))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["baseline", *map(str, arguments)])


def fit(path: Path, out: Path, *options: str) -> Result:
    return run("fit", path, "--out", out, "--embedder", "static", "--false-alarm-every", "2000", *options)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """The folder of baselines, the file of samples, and what the fit said."""
    root = tmp_path_factory.mktemp("fit")
    path = file_of(root, samples())
    return root / "baselines", path, fit(path, root / "baselines")


def test_a_fit_prints_its_folder_and_the_first_becomes_current(fitted: tuple[Path, Path, Result]) -> None:
    out, _, done = fitted
    assert done.exit_code == 0, done.output
    folder = Path(done.stdout.strip())
    assert folder.parent == out
    assert load(out).id == folder.name
    assert "it is the first here, and the current one" in done.stderr


def test_a_fit_keeps_what_the_detectors_need_and_no_text(fitted: tuple[Path, Path, Result]) -> None:
    from palegreen.evaluators.detectors.mewma import Calibration, Mewma

    arrays = arrays_of(fitted[0])
    for channel in ("response", "prompt"):
        prefix = f"calibration.{channel}."
        kept = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        calibration = Calibration.of(kept)
        assert calibration.threshold == load(fitted[0]).calibration[channel]["threshold"]
        Mewma(calibration)
    assert load(fitted[0]).run_length.shares["response"] == 4000
    assert not any(word in (fitted[0] / "current/manifest.json").read_text() for word in ("butter", "oven"))


def test_lines_parquet_and_a_store_hold_the_same_samples(tmp_path: Path) -> None:
    given = [
        replace(
            sample,
            tools=[{"name": "look_up", "parameters": {"type": "object"}}],
            response_format={"type": "json_object"},
            labels={"tier": "gold"},
            model="meta/llama",
            prompt_tokens=3,
            logprobs=[-0.5],
            mean_logprob=-0.5,
        )
        for sample in samples()[:40]
    ]
    database, columns = tmp_path / "samples.db", tmp_path / "parquet"
    with closing(Store(database, 1e12, 1 << 30)) as store:
        store.add([Scored(sample, {}, "ab" * 32) for sample in given])
    with Reader(database) as reader:
        writer("parquet", str(columns))(reader.chunks(Filter(), len(given)), str(columns))
    for place in (file_of(tmp_path, given), database, columns):
        assert list(source.samples(place)) == given


def test_the_same_samples_are_the_same_baseline(fitted: tuple[Path, Path, Result]) -> None:
    out, path, done = fitted
    again = fit(path, out)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert "the same baseline was there already" in again.stderr


def test_a_later_fit_is_a_candidate_until_it_is_promoted(fitted: tuple[Path, Path, Result], tmp_path: Path) -> None:
    path, out = fitted[1], tmp_path / "baselines"
    first = Path(fit(path, out).stdout.strip())
    second = Path(fit(path, out, "--seed", "7").stdout.strip())
    assert load(out).id == first.name
    promoted = run("promote", second)
    assert (promoted.exit_code, promoted.stdout) == (0, f"{second.name} is current, instead of {first.name}\n")
    assert load(out).seed == 7
    compared = run("compare", first, second)
    assert compared.stdout.splitlines()[:2] == [f"{first.name} -> {second.name}", "seed: 0 -> 7"]


def test_text_that_counts_up_is_noted_and_text_that_differs_by_chance_is_not(tmp_path: Path) -> None:
    def said(name: str, numbers: Sequence[int]) -> str:
        counting = [replace(sample, response=f"No. {at}") for sample, at in zip(samples(), numbers, strict=True)]
        return fit(file_of(tmp_path, counting), tmp_path / name).stderr

    noted, numbers = "note: the responses changed steadily while they were recorded", range(len(samples()))
    assert noted in said("up", numbers)
    assert noted not in said("drawn", Random(0).sample(numbers, len(numbers)))


def test_a_segment_with_too_few_samples_is_noted(fitted: tuple[Path, Path, Result], tmp_path: Path) -> None:
    config = tmp_path / "evaluator.yaml"
    config.write_text("drift: {segments: {endpoint: [billing]}}\n")
    said = fit(fitted[1], tmp_path / "out", "--config", str(config)).stderr
    assert "note: segment endpoint=billing has 0 samples to count checks on, 100 are needed" in said


def test_without_a_current_baseline_it_says_what_to_promote(tmp_path: Path, fitted: tuple[Path, Path, Result]) -> None:
    out = shutil.copytree(fitted[0], tmp_path / "out", symlinks=True)
    one = out / Path(fitted[2].stdout.strip()).name
    (out / "current").unlink()
    refused(run("show", out), f"{out}: none is current: palegreen baseline promote {one}")
    (out / "current").symlink_to("gone")
    refused(run("show", out), f"{out}: none is current: palegreen baseline promote {one}")
    assert run("promote", one).stdout == f"{one.name} is current, instead of gone\n"
    assert run("promote", one).stdout == f"{one.name} is current already\n"


def test_a_baseline_without_its_arrays_is_not_shown_as_if_it_were_whole(
    tmp_path: Path, fitted: tuple[Path, Path, Result]
) -> None:
    out = shutil.copytree(fitted[0], tmp_path / "out", symlinks=True)
    arrays = out / "current" / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:100])
    refused(run("show", out), "arrays.npz: is not what manifest.json is of; fit the baseline again")
    arrays.unlink()
    refused(run("show", out), "arrays.npz: cannot be read: No such file")


def test_show_is_a_page_for_a_person_or_the_manifest(fitted: tuple[Path, Path, Result]) -> None:
    shown = run("show", fitted[0])
    assert shown.exit_code == 0
    assert "run length" in shown.stdout
    assert "of its run length with other mixes of questions" in shown.stdout
    assert json.loads(run("show", fitted[0], "--json").stdout)["samples"] == 640


def refused(result: Result, line: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("palegreen: ")
    assert result.stderr.count("\n") == 1
    assert line in result.stderr


def test_too_few_samples_are_one_line_with_the_number_needed(tmp_path: Path) -> None:
    refused(fit(file_of(tmp_path, samples()[:10]), tmp_path / "out"), "10 can be used; needed: 600, 590 more")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "samples.jsonl:3: not JSON"),
        ('{"id": "x"}', "samples.jsonl:3: response: is missing"),
        ('{"response": 7}', "samples.jsonl:3: response: is not valid; allowed: a text"),
        ("[]", "samples.jsonl:3: is no JSON object"),
        ('{"response": "", "time": 1e13}', "samples.jsonl:3: time: is not valid"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(f'{{"response": "a"}}\n\n{line}\n')
    refused(fit(path, tmp_path / "out"), said)


def test_a_line_of_another_encoding_is_refused_not_read_as_garbled_text(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"response": "a"}\n' + '{"response": "Gr\u00fc\u00dfe"}\n'.encode("latin-1"))
    refused(fit(path, tmp_path / "out"), "samples.jsonl:2: not UTF-8: byte 0xfc at 16; allowed: JSON in UTF-8")


def test_samples_scored_by_two_embedders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(f'{{"response": "a", "embedder": "{name * 20}"}}\n' for name in ("ab", "ab", "cd")))
    refused(fit(path, tmp_path / "out"), "samples.jsonl:3: scored by the embedder cdcdcdcdcdcd, ")


def test_a_duration_without_times_is_refused_in_words(tmp_path: Path) -> None:
    path = file_of(tmp_path, recorded(600, time=0.0))
    result = run("fit", path, "--out", tmp_path / "out", "--embedder", "static")
    refused(result, "--false-alarm-every 30d: 600 of 600 samples have no time")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fit", "nowhere.jsonl", "--out", "out"), "nowhere.jsonl: cannot be read: No such file"),
        (("fit", __file__, "--out", "out", "--embedder", "none"), "a baseline needs an embedder"),
        (("fit", __file__, "--out", "out", "--embedder", "bert"), "there is no embedder 'bert'"),
        (("fit", __file__, "--out", "out", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("show", "nowhere"), "nowhere/manifest.json: cannot be read"),
        (("promote", "nowhere"), "nowhere/manifest.json: cannot be read"),
        (("compare", "nowhere", "here"), "nowhere/manifest.json: cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: Sequence[str], line: str) -> None:
    refused(run(*arguments), line)


def test_an_empty_or_damaged_parquet_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(fit(tmp_path / "empty", tmp_path / "out"), "0 can be used")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing more")
    refused(fit(tmp_path / "x.parquet", tmp_path / "out"), "x.parquet: cannot be read as Parquet")


def test_redaction_and_checks_are_those_of_the_evaluators_configuration(
    fitted: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    config = tmp_path / "evaluator.yaml"
    config.write_text("checks:\n  length: {enabled: false}\n")
    done = fit(fitted[1], tmp_path / "out", "--config", str(config))
    assert done.exit_code == 0, done.output
    assert "length" in load(fitted[0]).checks
    assert "length" not in load(tmp_path / "out").checks
