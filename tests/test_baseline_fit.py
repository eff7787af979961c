"""Fitting a baseline: what it is made of, what it makes of vectors, and what it refuses."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.fitting import START, Embedder, fitted, recorded

from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.features import CLIP, MEASURES, Features, Projected, Rows, measures_of
from palegreen.evaluators.baseline.fit import Fitted
from palegreen.evaluators.baseline.runlength import declare
from palegreen.evaluators.baseline.split import thirds
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.embed.parts import vectors_of
from palegreen.evaluators.sample import Sample


@cache
def usual() -> Fitted:
    return fitted(recorded(1800))


def seen(samples: Sequence[Sample]) -> Projected:
    return Features(usual().arrays).many(
        Rows.of(vectors_of(Embedder(), samples), [measures_of(sample) for sample in samples])
    )


def of_topic(samples: Sequence[Sample], topic: str) -> list[Sample]:
    return [sample for sample in samples if sample.prompt.endswith(f"{topic}.")]


def test_new_samples_of_the_same_kind_have_mean_zero_and_variance_one_in_both_channels() -> None:
    projected = seen(recorded(2000, seed=5))
    for vectors in (projected.response, projected.prompt):
        assert np.abs(vectors.mean(axis=0)).max() < 0.25
        assert 0.8 < vectors.var(axis=0).min() < vectors.var(axis=0).max() < 1.25


def test_other_questions_move_the_prompt_channel_and_not_the_response_channel() -> None:
    projected = seen(of_topic(recorded(2000, seed=5), "code"))
    moved = {name: float(np.linalg.norm(getattr(projected, name).mean(axis=0))) for name in ("response", "prompt")}
    assert moved["prompt"] > 1.5
    assert moved["response"] < 0.7


def test_answers_to_other_questions_move_the_response_channel() -> None:
    samples = of_topic(recorded(2000, seed=5), "code")
    answers = of_topic(recorded(2000, seed=6), "travel")
    swapped = [replace(one, response=other.response) for one, other in zip(samples, answers, strict=False)]
    assert np.linalg.norm(seen(swapped).response.mean(axis=0)) > 2.0


def test_one_sample_is_seen_as_among_many() -> None:
    samples = recorded(20, seed=5)
    samples[3] = replace(samples[3], messages=[])
    samples[4] = replace(samples[4], contexts=["Butter and salt."])
    features, many = Features(usual().arrays), seen(samples)
    for at, vectors in enumerate(vectors_of(Embedder(), samples)):
        one = features.one(vectors.get("prompt"), vectors.get("context"), vectors["response"], measures_of(samples[at]))
        assert np.allclose(one.response, many.response[at], atol=1e-4)
        assert one.cluster == many.cluster[at]
        assert (one.prompt is None) == (at == 3)
        assert ("prompt_energy" in one.scalars) == (at != 3)


def test_vectors_are_clipped() -> None:
    features = Features(usual().arrays)
    far = np.full(Embedder.dimensions, 1e3, np.float32)
    assert np.abs(features.one(None, None, far).response).max() == CLIP


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["prompt", "context", "response"])
def test_a_vector_that_is_not_finite_is_refused_by_name(part: str, value: float) -> None:
    vectors = dict.fromkeys(("prompt", "context", "response"), np.ones(Embedder.dimensions, np.float32))
    vectors[part] = vectors[part] * np.float32(value)
    with pytest.raises(ValueError, match=f"the embedding of its {part} holds NaN or infinity"):
        Features(usual().arrays).one(**vectors)


def test_a_prompt_is_in_a_cluster_or_outside_the_baseline_or_absent() -> None:
    features = Features(usual().arrays)
    strange = replace(recorded(1)[0], messages=[{"role": "user", "content": "Quid?"}])
    silent = replace(recorded(1)[0], messages=[])
    clusters = seen([*recorded(300, seed=5), strange, silent]).cluster
    assert set(clusters[:300].tolist()) <= {-1, *range(features.clusters - 1)}
    assert np.mean(clusters[:300] >= 0) > 0.98
    assert clusters[300:].tolist() == [-1, features.clusters - 1]


def test_applying_a_baseline_needs_numpy_alone() -> None:
    program = "import sys, palegreen.evaluators.baseline.features, palegreen.evaluators.baseline.manifest as m; "
    program += "import palegreen.evaluators.baseline.registry; print({'sklearn', 'pandas', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@given(
    n=st.integers(60, 400),
    sessions=st.integers(1, 200),
    timed=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_thirds_are_disjoint_whole_and_alike_in_size(n: int, sessions: int, timed: bool, seed: int) -> None:
    times = [float(number % 97) if timed else 0.0 for number in range(n)]
    parts = thirds(times, [f"s{number % sessions}" for number in range(n)], seed)
    everyone = np.concatenate(parts[:3])
    assert sorted(everyone.tolist()) == list(range(n))
    assert min(map(len, parts[:3])) >= n // 3 - 2 * -(-n // 60) - 2
    for third in parts[:3]:
        ordered = [times[at] for at in third]
        assert ordered == sorted(ordered)


def test_a_session_lies_in_one_third_and_each_third_covers_the_whole_time() -> None:
    samples = recorded(900)
    parts = thirds([sample.time for sample in samples], [sample.session for sample in samples], 0)
    sessions = [{samples[at].session for at in third} for third in parts[:3]]
    assert not sessions[0] & sessions[1] | sessions[0] & sessions[2] | sessions[1] & sessions[2]
    for third in parts[:3]:
        hours = np.histogram(third, bins=5, range=(0, 900))[0]
        assert hours.min() > 40


def test_the_seed_decides_the_split() -> None:
    one, same, other = (thirds([0.0] * 600, [""] * 600, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.regression, same.regression)
    assert not np.array_equal(one.regression, other.regression)


def test_the_manifest_says_what_it_is_of_and_how_it_was_made() -> None:
    said = usual().manifest
    assert said.samples == 1800
    assert sum(said.split[third] for third in ("regression", "whitening", "calibration")) == 1800
    assert said.embedder is not None
    assert (said.embedder.name, said.embedder.digest, said.embedder.dimensions) == ("fake", "fa" * 32, 24)
    assert (said.since, said.until) == (START, START + 17_990)
    assert said.models == {"llama": 1800}
    assert set(said.calibration) == {"response", "prompt"}
    assert 0.2 < said.geometry["explained"] < 1


def test_more_dimensions_than_a_quarter_of_the_whitening_third_are_not_looked_at() -> None:
    class Wide(Embedder):
        dimensions = 200

    made = fitted(recorded(600), embedder=Wide())
    assert made.manifest.geometry["dimensions"] <= made.manifest.split["whitening"] // 4 + len(MEASURES)


def test_checks_are_counted_by_cluster_on_what_nothing_was_fitted_to() -> None:
    samples = recorded(900)
    for at in range(0, 900, 9):
        samples[at] = replace(samples[at], finish_reason="length")
    said = fitted(samples).manifest
    counts = said.checks["truncated"]
    assert sum(counts.judged) == said.split["whitening"] + said.split["calibration"]
    assert 0.05 < sum(counts.failures) / sum(counts.judged) < 0.18
    assert len(counts.judged) == len(said.normal.limit["truncated"]) == said.geometry["clusters"]
    assert "truncated" not in said.normal.loss_limit


def test_the_quantiles_of_words_let_the_check_of_length_speak() -> None:
    quantiles = usual().manifest.quantiles
    assert {"words", "energy", "distance", "prompt_energy", "prompt_distance"} == set(quantiles)
    checks = build({})
    short, right = (replace(recorded(1)[0], response=text) for text in ("No.", recorded(1)[0].response))
    assert [checks.run(View(each, {}, quantiles))["length"].passed for each in (short, right)] == [False, True]


@pytest.mark.parametrize(
    ("every", "samples", "shares"),
    [("20000", 20_000, (40_000, 20_000)), ("30d", 259_200, (518_400, 259_200))],
)
def test_a_run_length_is_in_samples_or_a_time_at_their_rate(
    every: str, samples: float, shares: Sequence[float]
) -> None:
    declared = declare(every, recorded(600), None)
    assert declared.samples == pytest.approx(samples)
    assert (declared.shares["response"], declared.shares["prompt"]) == pytest.approx(shares)
    assert declared.shares["checks"] == declared.shares["response"]


def test_a_time_counts_the_samples_of_all_replicas() -> None:
    samples = [replace(sample, replica="ab"[at % 2]) for at, sample in enumerate(recorded(600))]
    assert declare("1d", samples, None).samples == pytest.approx(8640)
    assert declare("1d", samples, None).replicas == 2
    assert declare("1d", samples, 8).samples == pytest.approx(4 * 8640)


@pytest.mark.parametrize(
    ("every", "times", "line"),
    [
        (
            "30d",
            [0.0] * 600,
            "600 of 600 samples have no time, so a duration has no rate; allowed: a number of samples",
        ),
        ("30d", [1e9] * 600, "all samples have the same time"),
        ("soon", [0.0] * 600, "allowed: a number of samples, or a duration such as 30d"),
        ("-5", [0.0] * 600, "allowed: a number of samples, or a duration such as 30d"),
        ("7", [0.0] * 600, "is 7 samples; allowed: 100 or more"),
    ],
)
def test_a_run_length_that_means_nothing_is_refused(every: str, times: list[float], line: str) -> None:
    samples = [replace(sample, time=time) for sample, time in zip(recorded(600), times, strict=True)]
    with pytest.raises(BaselineError, match=line):
        declare(every, samples, None)


def test_too_few_samples_are_refused_with_the_number_needed() -> None:
    samples = recorded(610)
    samples[:5] = [replace(sample, sampled="kept") for sample in samples[:5]]
    samples[5:15] = [replace(sample, status=500) for sample in samples[5:15]]
    samples[15] = replace(samples[15], response=" ")
    with pytest.raises(
        BaselineError, match=r"594 can be used \(1 empty, 10 failed, 5 kept left out\); needed: 600, 6 m"
    ):
        fitted(samples)


def test_what_is_no_fair_share_is_left_out_and_counted() -> None:
    samples = [*recorded(700), *recorded(50, seed=1, sampled="kept", response="Sorry.")]
    said = fitted(samples).manifest
    assert (said.samples, said.left_out) == (700, {"kept": 50})


def test_copies_of_a_sample_count_once_and_it_says_so() -> None:
    with pytest.raises(BaselineError, match=r"599 can be used \(599 repeated left out\); needed: 600, 1 more"):
        fitted([*recorded(599), *recorded(599)])
    said = fitted([*recorded(700), *recorded(70)]).manifest
    assert (said.samples, said.left_out) == (700, {"repeated": 70})
    assert "70 of 770 samples are copies of others: each counts once" in said.remarks


def test_a_model_may_say_the_same_again() -> None:
    unnamed = [*recorded(400, id="", time=0.0), *recorded(400, id="", time=0.0)]
    assert fitted(unnamed).manifest.samples == 800
    another_choice = [*recorded(400), *recorded(400, choice=1)]
    assert fitted(another_choice).manifest.samples == 800


def test_constant_text_is_refused() -> None:
    with pytest.raises(BaselineError, match="all 700 responses are the same text"):
        fitted(recorded(700, response="Yes."))


def mostly(same: int, n: int) -> list[Sample]:
    return [replace(sample, response="Yes.") if at % n < same else sample for at, sample in enumerate(recorded(1000))]


def test_text_that_is_hardly_ever_another_is_refused_and_text_that_is_mostly_the_same_is_noted() -> None:
    with pytest.raises(BaselineError, match="960 of 1000 responses are the same text; needed: 50 others, 10 more"):
        fitted(mostly(24, 25))
    noted = "750 of 1000 responses are the same text (250 others): false alarms may come ten times as often"
    assert any(remark.startswith(noted) for remark in fitted(mostly(3, 4)).manifest.remarks)
    assert not any("the same text" in remark for remark in fitted(mostly(1, 4)).manifest.remarks)


def test_embeddings_that_are_all_the_same_are_refused() -> None:
    class Constant(Embedder):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.tile(super().embed(["x"]), (len(texts), 1))

    with pytest.raises(BaselineError, match="the responses are all alike"):
        fitted(recorded(700), embedder=Constant())


def test_embeddings_that_are_not_finite_are_refused() -> None:
    class Broken(Embedder):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().embed(texts) * np.float32("nan")

    with pytest.raises(BaselineError, match="the embedding of its response holds NaN or infinity; allowed: numbers"):
        fitted(recorded(700), embedder=Broken())


def test_the_same_samples_give_the_same_arrays_and_redaction_comes_first() -> None:
    plain = recorded(700, seed=3)
    told = [
        replace(sample, response=f"{sample.response} Write to a{at}@example.com") for at, sample in enumerate(plain)
    ]
    hidden = [replace(sample, response=f"{sample.response} Write to [EMAIL]") for sample in plain]
    one, other = fitted(told), fitted(hidden)
    assert one.manifest == other.manifest
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_samples_without_prompts_make_a_baseline_without_a_prompt_channel_and_it_says_so() -> None:
    said = fitted(recorded(700, messages=[])).manifest
    assert set(said.calibration) == {"response"}
    assert "700 of 700 samples have no prompt: their responses are judged without the question" in said.remarks
    assert said.geometry["clusters"] == 1


def test_a_check_that_fails_in_nearly_every_sample_is_noted() -> None:
    remarks = fitted(recorded(700, finish_reason="length")).manifest.remarks
    assert any(re.match(r"check truncated fails in (\d+) of \1 samples: it can never alarm", each) for each in remarks)
    assert not any("never alarm" in remark for remark in usual().manifest.remarks)


def test_a_baseline_of_mixed_kinds_says_so() -> None:
    german = "Das Wetter ist heute sehr schön und wir gehen mit den Kindern in den Park, Nummer {}."
    samples = recorded(900)
    for at in range(0, 900, 4):
        samples[at] = replace(samples[at], response=german.format(at), model="qwen")
    samples[10] = replace(samples[10], time=START + 5000)
    remarks = " ".join(fitted(samples).manifest.remarks)
    assert "2 models in one baseline (llama 675, qwen 225)" in remarks
    assert "languages are mixed (" in remarks
    assert "not in the order of time; they were sorted" in remarks


def test_samples_of_which_some_have_no_time_are_taken_in_their_order_and_it_says_so() -> None:
    samples = [replace(sample, time=0.0 if at < 4 else sample.time) for at, sample in enumerate(recorded(700))]
    said = fitted(samples).manifest
    assert "4 of 700 samples have no time: all are taken in the order in which they were read" in said.remarks
    assert said.since is None


def test_fields_that_some_samples_lack_are_named() -> None:
    samples = [
        replace(sample, finish_reason="" if at % 2 else "stop", mean_logprob=math.nan if at < 20 else -0.5)
        for at, sample in enumerate(recorded(700))
    ]
    remarks = fitted(samples).manifest.remarks
    assert "350 of 700 samples have a finish_reason: checks that need it are counted on these alone" in remarks
    assert "20 of 700 samples have a mean_logprob that is not a number: they count as without" in remarks
    assert not any("finish_reason" in remark for remark in fitted(recorded(700)).manifest.remarks)
