"""The projection that replicas are compared by, and its counters."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.static import Static
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.pipeline import Pipeline
from palegreen.evaluators.replicas import projection as module
from palegreen.evaluators.replicas.counts import BATCH, MOST, Projections
from palegreen.evaluators.replicas.projection import CLIP, DIMENSIONS, SHIPPED, projection
from palegreen.runtime.exposition import Collected, Readings
from palegreen.runtime.yamlfile import ConfigError

ASSETS = Path(module.__file__).parent / "assets"
REPLICA = ("m", "e", "ns/p", "ns", "p")
QUESTIONS = ["How do I reset my card?", "What is inflation?", "Name three rivers.", "Why is the sky blue?"]


def _lines(readings: Readings, metric: str, **labels: str) -> dict[str, float]:
    """Values of a metric's series with these labels, by their text."""
    lines = readings.lines.get(metric, "").splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if all(part in line for part in wanted)
    }


def _counted(projections: Projections) -> Readings:
    now = Collected()
    projections.show(now)
    return now.readings()


def _record(response: str, prompt: str, **more: Any) -> Envelope:
    record = {"response": response, "messages": [{"role": "user", "content": prompt}], "model": "m", **more}
    return Envelope({"tap": "file", "kind": "jsonl"}, [json.dumps(record).encode()])


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_embedder_has_a_projection_of_its_own_geometry_named_by_its_content(name: str) -> None:
    chosen = embedder(name, 1)
    assert chosen is not None
    found = projection(chosen)
    assert found is not None
    assert hashlib.sha256((ASSETS / f"{name}.npz").read_bytes()).hexdigest().startswith(found.basis)
    assert found(chosen.embed([QUESTIONS[0]])[0]).shape == (DIMENSIONS,)


def test_features_of_texts_it_was_not_fitted_on_are_of_like_size_and_never_beyond_the_clip(tmp_path: Path) -> None:
    embed = Static()
    found = projection(embed)
    assert found is not None
    captures = Path(__file__).parent / "captures"
    texts = [line for path in sorted(captures.rglob("*.json"))[:40] for line in path.read_text("utf-8").split('"')]
    texts = [text for text in texts if text.count(" ") > 5][:400]
    features = np.array([found(row) for row in embed.embed(texts)])
    assert np.abs(features).max() <= CLIP
    assert 0.2 < np.median(features.var(axis=0)) < 5


def test_counters_hold_the_sums_of_features_plus_5_and_of_their_squares() -> None:
    embed = Static()
    found = projection(embed)
    assert found is not None
    projections = Projections(found)
    vectors = embed.embed(QUESTIONS)
    for row in vectors:
        projections.add(REPLICA, {"response": row})
    features = np.array([found(row) for row in vectors])
    shown = _counted(projections)
    for name, wanted in (("sum", (features + 5).sum(axis=0)), ("square_sum", (features**2).sum(axis=0))):
        lines = _lines(shown, f"palegreen_drift_projection_{name}_total", channel="response", basis=found.basis)
        assert list(lines.values()) == pytest.approx(wanted)
        assert [line.split('dim="')[1].split('"')[0] for line in lines] == [str(dim) for dim in range(DIMENSIONS)]
    assert list(_lines(shown, "palegreen_drift_samples_total", channel="response").values()) == [4]
    assert list(_lines(shown, "palegreen_drift_samples_total", channel="prompt").values()) == [0]


def test_batches_of_independent_samples_lie_32_apart_on_average() -> None:
    found = projection(Static())
    assert found is not None
    projections, rng = Projections(found), np.random.default_rng(3)
    for _ in range(200 * BATCH):
        row = rng.standard_normal(128)
        projections.add(REPLICA, {"response": (row / np.linalg.norm(row)).astype(np.float32)})
    shown = _counted(projections)
    (batches,) = _lines(shown, "palegreen_drift_batches_total", channel="response").values()
    (distance,) = _lines(shown, "palegreen_drift_batch_distance_sum_total", channel="response").values()
    assert batches > 190
    assert distance / batches == pytest.approx(DIMENSIONS, rel=0.1)


def test_the_moment_of_a_change_is_not_counted_as_chance() -> None:
    found = projection(Static())
    assert found is not None
    projections, rng = Projections(found), np.random.default_rng(3)
    axis = Static().embed(["A card is reset in the app."])[0]
    for at in range(20 * BATCH):
        row = rng.standard_normal(128) / 40 + (2 * axis if at >= 10 * BATCH else 0)
        projections.add(REPLICA, {"response": row.astype(np.float32)})
    shown = _counted(projections)
    (batches,) = _lines(shown, "palegreen_drift_batches_total", channel="response").values()
    (square,) = _lines(shown, "palegreen_drift_batch_distance_square_sum_total", channel="response").values()
    assert square / batches < 4 * DIMENSIONS**2


def test_a_vector_that_is_not_finite_is_left_out_and_reported() -> None:
    found = projection(Static())
    assert found is not None
    projections = Projections(found)
    good = np.full(128, 1 / np.sqrt(128), np.float32)
    assert not projections.add(REPLICA, {"response": np.full(128, np.nan, np.float32), "prompt": good})
    assert set(_lines(_counted(projections), "palegreen_drift_samples_total").values()) == {0}


def test_the_number_of_replicas_is_bounded() -> None:
    found = projection(Static())
    assert found is not None
    projections, row = Projections(found), np.full(128, 1 / np.sqrt(128), np.float32)
    for at in range(MOST + 5):
        projections.add(("m", "e", str(at), "", ""), {"response": row})
    assert len(_lines(_counted(projections), "palegreen_drift_samples_total", channel="response")) == MOST


def test_the_scorer_counts_samples_at_the_rate_by_replica_and_none_that_were_kept() -> None:
    pipeline = Pipeline(EvaluateConfig(embedder="static", model="m", endpoint="e", instance_id="i", revision="7f9"))
    before = pipeline.readings()
    assert set(_lines(before, "palegreen_drift_samples_total").values()) == {0}, "there before the first sample"
    pipeline.score(
        [
            _record("A card is reset in the app.", QUESTIONS[0]),
            _record("Prices rise.", QUESTIONS[1]),
            _record("Because of scattering.", QUESTIONS[3], replica="other"),
            _record("An error.", QUESTIONS[2], sampled="kept"),
            _record("", QUESTIONS[2], tool_calls=[{"name": "rivers", "arguments": "{}"}]),
        ]
    )
    shown = pipeline.readings()
    own = {"model": "m", "endpoint": "e", "instance_id": "i"}
    assert list(_lines(shown, "palegreen_drift_samples_total", channel="response", **own).values()) == [2]
    assert list(_lines(shown, "palegreen_drift_samples_total", channel="prompt", **own).values()) == [3]
    other = {**own, "instance_id": "other"}
    assert list(_lines(shown, "palegreen_drift_samples_total", channel="response", **other).values()) == [1]
    assert list(_lines(shown, "palegreen_replica_revision_info", **own, revision="7f9").values()) == [1]
    pipeline.close()


def test_without_an_embedder_or_a_revision_there_are_no_such_series() -> None:
    pipeline = Pipeline(EvaluateConfig(embedder="none", model="m"))
    pipeline.score([_record("Prices rise.", QUESTIONS[1])])
    shown = pipeline.readings().lines
    assert not [name for name in shown if name.startswith("palegreen_drift_") or "revision" in name]
    pipeline.close()


def test_a_projection_can_be_fitted_for_another_embedder_and_is_used_from_its_file(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    rng = np.random.default_rng(1)
    words = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8").split()
    texts.write_text("\n".join(" ".join(rng.choice(words, 9)) for _ in range(1000)), encoding="utf-8")
    out = tmp_path / "own.npz"
    command = [sys.executable, "-m", "palegreen.evaluators.replicas.fit", texts, "--embedder", "static", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = projection(Static(), out)
    assert found is not None
    assert f"basis {found.basis}" in done.stderr
    shipped = projection(Static())
    assert shipped is not None
    assert found.basis != shipped.basis
    features = np.array([found(row) for row in Static().embed(texts.read_text("utf-8").splitlines())])
    assert np.abs(np.corrcoef(features.T) - np.eye(DIMENSIONS)).max() < 0.05


def test_a_projection_of_another_embedder_or_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"was fitted for the embedder .*, not for static"):
        projection(Static(), ASSETS / "minilm.npz")
    (tmp_path / "none.npz").write_bytes(b"text")
    with pytest.raises(ConfigError, match=r"none\.npz: it is no projection"):
        projection(Static(), tmp_path / "none.npz")
    with pytest.raises(ConfigError, match="cannot be read"):
        projection(Static(), tmp_path / "absent.npz")


def test_an_embedder_of_ones_own_has_no_projection_until_one_is_given() -> None:
    own = Static()
    own.name = "sentence-transformers:own"
    assert projection(own) is None
