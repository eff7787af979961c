"""`palegreen backtest`, and what the evaluator shows of the same samples: from files to what people are told."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.drifting import traffic

from palegreen.cli.main import main
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.drift.watch import REPLICAS
from palegreen.evaluators.embed.static import Static
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.pipeline import Pipeline
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire.jsonl import write
from palegreen.runtime.yamlfile import ConfigError

BEFORE = 60
CONFIG = """\
embedder: static
drift:
  segments:
    tenant: [acme]
"""


def file_of(folder: Path, some: Sequence[Sample], name: str = "samples.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"".join(write(sample) + b"\n" for sample in some))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of baselines and a configuration."""
    folder = tmp_path_factory.mktemp("backtest")
    (folder / "evaluator.yaml").write_text(CONFIG)
    path = file_of(folder, traffic(620, 0), "reference.jsonl")
    every = ("--false-alarm-every", "2000")
    done = run("baseline", "fit", path, "--out", folder / "baselines", "--config", folder / "evaluator.yaml", *every)
    assert done.exit_code == 0, done.output
    return folder


def changed() -> list[Sample]:
    """Samples that are as usual, then cut, with a mark-up of their own."""
    usual, then = traffic(BEFORE, 1), traffic(60, 2)
    cut = [
        replace(
            each,
            id=f"cut<{at}>",
            response="<script>alert(1)</script> & " + " ".join(each.response.split()[:6]),
            finish_reason="length",
            replica="<b>r1</b>",
            time=each.time + 10 * BEFORE,
        )
        for at, each in enumerate(then)
    ]
    return [*(replace(each, replica="<b>r1</b>") for each in usual), *cut]


def backtest(root: Path, path: Path, *options: str | Path) -> Result:
    return run("backtest", "--baseline", root / "baselines", path, *options)


def as_json(root: Path, path: Path, *options: str | Path) -> dict[str, Any]:
    done = backtest(root, path, "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_json_says_which_alarms_at_which_sample_since_when_and_why(root: Path) -> None:
    path = file_of(root, changed())
    found = as_json(root, path)
    assert list(found)[:4] == ["samples", "baseline", "false_alarm_every_samples", "alarms"]
    assert found["samples"] == BEFORE + 60
    assert found["baseline"] == (root / "baselines/current").readlink().name
    assert found["false_alarm_every_samples"] == 2000
    pages = [alarm for alarm in found["alarms"] if alarm["channel"] in ("response", "check")]
    first = next(alarm for alarm in pages if alarm["channel"] == "check")
    assert list(first)[:7] == ["sample", "id", "channel", "checks", "since", "segment", "replica"]
    assert BEFORE <= first["sample"] < BEFORE + 30
    assert first["id"] == f"cut<{first['sample'] - BEFORE}>"
    assert abs(first["since"] - BEFORE) <= 3
    assert {"truncated", "length"} & set(first["checks"])
    assert first["replica"] == "<b>r1</b>"
    assert all(name.startswith("cut<") for name in first["moved"])


def test_a_clean_file_alarms_nobody_and_says_what_was_to_be_expected(root: Path) -> None:
    path = file_of(root, traffic(300, 5))
    found = as_json(root, path)
    assert [alarm for alarm in found["alarms"] if alarm["pages"]] == []
    assert found["expected_false_alarms"] == pytest.approx(300 / 2000, rel=0.1)
    said = backtest(root, path).stdout
    assert "one in 2000 samples is declared" in said
    assert "pages seen: 0 (0 a day)" in said


def test_people_are_told_the_delay_and_why(root: Path) -> None:
    said = backtest(root, file_of(root, changed())).stdout
    assert re.search(r"check alarm, pages: at sample \d+ \(cut<\d+>\)", said)
    assert re.search(r"since +sample \d+, by estimate: seen in \d+ samples", said)
    assert "checks fail more often, or score lower, than in the baseline" in said
    assert "until    the end" in said


class _Page(HTMLParser):
    """The elements of a page, and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "onload", "onclick")]


def test_the_page_is_self_contained_draws_each_channel_and_escapes_all_texts(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert backtest(root, file_of(root, changed()), "--html", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert (parsed.links, "script" in parsed.elements) == ([], False)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; " in text
    assert "&lt;b&gt;r1&lt;/b&gt;" in text
    assert "prefers-color-scheme:dark" in text
    drawing = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    lines = {line.get("class"): line.get("points", "") for line in drawing.iter("polyline")}
    assert {"response", "check"} <= set(lines)
    assert all(len(points.split()) > 100 for points in lines.values())
    assert any("check alarm at sample" in (title.text or "") for title in drawing.iter("title"))


def test_segments_of_the_configuration_are_watched(root: Path) -> None:
    given = traffic(600, 7)
    cut = [
        replace(each, finish_reason="length") if each.team == "acme" and at % 2 else each
        for at, each in enumerate(given)
    ]
    found = as_json(root, file_of(root, cut), "--config", root / "evaluator.yaml")
    assert ("tenant=acme", ["truncated"]) in [(alarm["segment"], alarm["checks"]) for alarm in found["alarms"]]


def test_samples_out_of_the_order_of_time_are_flagged_in_words(root: Path) -> None:
    found = as_json(root, file_of(root, [*traffic(20, 1), *traffic(20, 2)]))
    assert found["remarks"] == ["19 of 40 samples are out of the order of time; they were replayed as they stand"]


def refused(result: Result, line: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("palegreen: ")
    assert result.stderr.count("\n") == 1
    assert line in result.stderr


def test_bad_input_is_one_line(root: Path, tmp_path: Path) -> None:
    path = file_of(tmp_path, traffic(3, 1))
    refused(run("backtest", "--baseline", tmp_path, path), "manifest.json: cannot be read")
    refused(backtest(root, tmp_path / "none.jsonl"), "none.jsonl: cannot be read")
    (tmp_path / "empty.jsonl").write_text("\n")
    refused(backtest(root, tmp_path / "empty.jsonl"), "holds no samples")
    (tmp_path / "bad.jsonl").write_text('{"response": "a"}\n{"id": "x"}\n')
    refused(backtest(root, tmp_path / "bad.jsonl"), "bad.jsonl:2: response: is missing")
    (tmp_path / "other.yaml").write_text("embedder: minilm\n")
    refused(backtest(root, path, "--config", tmp_path / "other.yaml"), "the baseline is of the embedder static")
    (tmp_path / "none.yaml").write_text("drift: {segments: {planet: [mars]}}\n")
    refused(backtest(root, path, "--config", tmp_path / "none.yaml"), "drift.segments.planet")
    refused(backtest(root, path, "--html", tmp_path / "no" / "page.html"), "page.html: cannot be written")


def damaged(root: Path, tmp_path: Path, content: bytes | None, manifest: str | None = None) -> Path:
    """A copy of the baseline with other contents."""
    folder = tmp_path / "copy"
    folder.mkdir()
    source = root / "baselines" / "current"
    (folder / "arrays.npz").write_bytes((source / "arrays.npz").read_bytes() if content is None else content)
    (folder / "manifest.json").write_text(manifest or (source / "manifest.json").read_text())
    return folder


def test_a_baseline_that_is_damaged_or_of_another_format_is_one_line(root: Path, tmp_path: Path) -> None:
    path = file_of(tmp_path, traffic(3, 1))
    truncated = (root / "baselines/current/arrays.npz").read_bytes()[:-100]
    refused(run("backtest", "--baseline", damaged(root, tmp_path, truncated), path), "arrays.npz: is not what")
    said = json.loads((root / "baselines/current/manifest.json").read_text())
    folder = tmp_path / "copy"
    for change, line in (
        ({"format": 99}, "format: got 99; allowed: 1"),
        ({"samples": 7}, "was changed after the fit"),
        ({"id": "", "arrays": ""}, "the baseline was not calibrated"),
        ({"id": "", "run_length": None}, "was changed after the fit"),
    ):
        (folder / "manifest.json").write_text(json.dumps(said | change))
        refused(run("backtest", "--baseline", folder, path), line)


def test_a_baseline_that_lacks_an_array_is_one_line_that_names_it(root: Path, tmp_path: Path) -> None:
    from palegreen.evaluators.baseline.manifest import load
    from palegreen.evaluators.baseline.registry import arrays_of, save

    current = root / "baselines"
    arrays = {name: array for name, array in arrays_of(current).items() if name != "calibration.response.threshold"}
    folder = save(tmp_path / "lacking", load(current), arrays).folder
    path = file_of(tmp_path, traffic(3, 1))
    refused(
        run("backtest", "--baseline", folder, path), "has no calibration.response.threshold: fit the baseline again"
    )


def test_an_embedding_that_is_no_number_is_one_line_that_names_the_sample(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Static.embed
    monkeypatch.setattr(Static, "embed", lambda self, texts: whole(self, texts) * np.float32(np.nan))
    refused(backtest(root, file_of(tmp_path, traffic(3, 1))), "samples.jsonl: sample 0 (r0): the embedding of its ")


def lines_of(sample: Sequence[Sample]) -> list[Envelope]:
    return [Envelope({"tap": "file", "kind": "jsonl"}, [write(each)]) for each in sample]


def test_the_evaluator_alarms_at_the_sample_at_which_a_backtest_does_and_goes_on_after_a_restart(
    root: Path, tmp_path: Path
) -> None:
    config = EvaluateConfig(
        file=tmp_path, embedder="static", baseline=root / "baselines", store=str(tmp_path / "samples.db")
    )
    samples = changed()
    pipeline = Pipeline(config)
    assert pipeline.about["baseline"] == (root / "baselines/current").readlink().name
    pipeline.score(lines_of(samples[: BEFORE + 2]))
    pipeline.close()
    assert (tmp_path / "samples.db.drift").exists()
    pipeline = Pipeline(config)
    pipeline.score(lines_of(samples[BEFORE + 2 :]))
    lines = pipeline.readings().lines
    expected = next(
        alarm for alarm in as_json(root, file_of(tmp_path, samples))["alarms"] if alarm["channel"] == "check"
    )
    drift = pipeline._drift
    assert drift is not None
    alarm = drift.watch.replicas["<b>r1</b>"].alarms["check"]
    assert (alarm.sample, alarm.since) == (expected["sample"], expected["since"])
    assert 'model="llama",endpoint="chat",instance_id="<b>r1</b>"' in lines["palegreen_drift_score_ratio"]
    assert 'channel="check"} 1.0' in lines["palegreen_drift_alarm"]
    assert 'check="truncated"' in lines["palegreen_drift_check_evidence_ratio"]
    pipeline.close()


def test_without_a_baseline_or_with_one_of_another_embedder_there_is_no_series_of_drift(
    root: Path, tmp_path: Path
) -> None:
    for embedder, baseline, mismatch in (("static", None, None), ("none", root / "baselines", "1.0")):
        pipeline = Pipeline(EvaluateConfig(file=tmp_path, embedder=embedder, baseline=baseline))
        pipeline.score(lines_of(traffic(3, 1)))
        lines = pipeline.readings().lines
        assert "palegreen_drift_score_ratio" not in lines
        assert "palegreen_drift_watched_samples_total" not in lines
        assert (mismatch is not None) == ("palegreen_baseline_mismatch" in lines)


def test_a_damaged_baseline_refuses_the_start_in_one_line(root: Path, tmp_path: Path) -> None:
    folder = damaged(root, tmp_path, b"no arrays")
    with pytest.raises(ConfigError, match=r"arrays\.npz: is not what"):
        Pipeline(EvaluateConfig(file=tmp_path, embedder="static", baseline=folder))


def test_samples_of_a_kind_that_the_baseline_has_none_of_are_not_judged(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    path.write_text('{"response": "An answer to nothing.", "mean_logprob": NaN}\n' * 40)
    found = as_json(root, path)
    assert (found["results"], found["alarms"]) == ({"outside": 40}, [])
    assert (
        found["remarks"][0] == "none of 40 samples were compared with the baseline: no alarm says little of the others"
    )
    unasked = "40 of 40 samples have no prompt: the baseline has none such, so they were not compared"
    assert unasked in found["remarks"]
    said = backtest(root, path, "--html", tmp_path / "page.html").stdout
    assert "no alarm, but only 0 of 40 samples were compared" in said.splitlines()
    assert "No alarm, but only 0 of 40" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_checks_that_the_samples_lack_the_fields_for_are_named(root: Path) -> None:
    found = as_json(root, file_of(root, [replace(each, finish_reason="") for each in traffic(40, 1)]))
    missing = "content_filter (0 of 40), truncated (0 of 40)"
    assert found["remarks"] == [
        f"checks that could not be judged: {missing}; the samples lack what the baseline's mostly have"
    ]


def test_any_number_of_replicas_is_told_apart(root: Path) -> None:
    turns = [
        replace(each, replica=f"r{number}", finish_reason="length", id=f"{number}-{each.id}")
        for each in traffic(22, 1)
        for number in range(REPLICAS + 2)
    ]
    found = as_json(root, file_of(root, turns))
    assert sum(found["results"].values()) == found["samples"] == 22 * (REPLICAS + 2)
    alarmed = {alarm["replica"] for alarm in found["alarms"] if alarm["channel"] == "check"}
    assert alarmed == {f"r{number}" for number in range(REPLICAS + 2)}
