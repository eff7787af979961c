"""Detectors of drift: one suite that all pass, then what each is for."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palegreen.evaluators.detectors.bounds import limits, mean_bound, rate_bound
from palegreen.evaluators.detectors.calibrate import calibrate
from palegreen.evaluators.detectors.combine import allotted, combined
from palegreen.evaluators.detectors.conditional import Conditional
from palegreen.evaluators.detectors.edetector import REST, EDetector
from palegreen.evaluators.detectors.latch import COOL_DOWN, HOLD, WARM_UP, Latch, Turn
from palegreen.evaluators.detectors.mewma import Averages, Calibration, Mewma, Plan

DIMENSIONS, N, RUN_LENGTH, CLUSTERS = 24, 300, 150.0, 3
RATE = 0.05


class Detector(Protocol):
    def update(self, value: Any, cluster: int = 0) -> float: ...
    def reset(self) -> None: ...
    def state(self) -> dict[str, NDArray[Any]]: ...
    def restore(self, state: dict[str, NDArray[Any]]) -> None: ...


def kinds(draw: np.random.Generator, count: int) -> NDArray[np.intp]:
    return draw.integers(CLUSTERS, size=count)


@cache
def calibration() -> Calibration:
    draw = np.random.default_rng(1)
    return calibrate(draw.normal(size=(N, DIMENSIONS)), N, RUN_LENGTH, seed=2, clusters=kinds(draw, N))


@dataclass
class Case:
    """A detector, samples of which nothing is wrong, samples that are, and one that is none."""

    make: Callable[[], Detector]
    usual: Callable[[np.random.Generator, int], list[Any]]
    wrong: Callable[[np.random.Generator, int], list[Any]]
    refused: Any
    run_length: float = 1_000.0


CASES = {
    "mewma": Case(
        lambda: Mewma(calibration()),
        lambda draw, count: list(draw.normal(size=(count, DIMENSIONS))),
        lambda draw, count: list(draw.normal(size=(count, DIMENSIONS)) + 1),
        np.full(DIMENSIONS, np.nan),
        RUN_LENGTH,
    ),
    "check": Case(
        lambda: EDetector([2 * RATE] * CLUSTERS, 1_000),
        lambda draw, count: list((draw.random(count) < RATE).astype(float)),
        lambda draw, count: list((draw.random(count) < 0.6).astype(float)),
        math.nan,
    ),
    "score": Case(
        lambda: EDetector([0.4] * CLUSTERS, 1_000),
        lambda draw, count: list(draw.beta(3, 7, size=count)),
        lambda draw, count: list(draw.beta(7, 3, size=count)),
        math.nan,
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def run(detector: Detector, samples: list[Any], draw: np.random.Generator) -> list[float]:
    return [detector.update(*pair) for pair in zip(samples, kinds(draw, len(samples)).tolist(), strict=True)]


def first_above(ratios: list[float]) -> int:
    return next((at for at, ratio in enumerate(ratios, 1) if ratio > 1), len(ratios))


def test_what_goes_wrong_is_found_within_a_few_dozen_samples(case: Case) -> None:
    draw, detector = np.random.default_rng(3), case.make()
    assert max(run(detector, case.usual(draw, 40), draw)) < 1
    assert first_above(run(detector, case.wrong(draw, 60), draw)) < 40


def test_an_alarm_ends_after_its_cause(case: Case) -> None:
    draw, detector = np.random.default_rng(4), case.make()
    assert run(detector, case.wrong(draw, 300), draw)[-1] > 1
    assert min(run(detector, case.usual(draw, 4_000), draw)[-2_000:]) < 0.7


def test_the_same_samples_give_the_same_ratios(case: Case) -> None:
    samples = case.usual(np.random.default_rng(5), 50)
    once, again = (run(case.make(), samples, np.random.default_rng(6)) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("before", [0, 1, 70])
def test_restored_from_its_state_it_goes_on_as_if_nothing_had_been(case: Case, before: int) -> None:
    draw, detector, restarted = np.random.default_rng(7), case.make(), case.make()
    run(detector, case.usual(draw, before), draw)
    restarted.restore(detector.state())
    samples = case.usual(draw, 50)
    assert run(restarted, samples, np.random.default_rng(8)) == run(detector, samples, np.random.default_rng(8))


def test_a_state_is_a_copy(case: Case) -> None:
    draw, detector = np.random.default_rng(9), case.make()
    state = detector.state()
    kept = pickle.dumps(state)
    run(detector, case.wrong(draw, 20), draw)
    assert pickle.dumps(state) == kept


def test_the_state_is_of_one_size_and_below_64_kb(case: Case) -> None:
    draw, detector = np.random.default_rng(10), case.make()

    def size() -> int:
        return len(pickle.dumps({name: array.tobytes() for name, array in detector.state().items()}))

    empty = size()
    run(detector, case.usual(draw, 500), draw)
    assert empty == size() < 64 << 10


def test_a_state_of_something_else_is_refused_in_one_line(case: Case) -> None:
    detector = case.make()
    broken = {name: np.full_like(array, np.nan) for name, array in detector.state().items()}
    for state in ({}, {name: array[..., None] for name, array in detector.state().items()}, broken):
        with pytest.raises(ValueError, match=r"^[^\n]*state[^\n]*$"):
            detector.restore(state)


def test_what_is_no_number_is_refused_in_one_line_and_leaves_no_trace(case: Case) -> None:
    draw, detector, other = np.random.default_rng(11), case.make(), case.make()
    run(detector, case.usual(draw, 20), draw)
    other.restore(detector.state())
    with pytest.raises(ValueError, match=r"^[^\n]*the sample is left out$"):
        detector.update(case.refused)
    sample = case.usual(draw, 1)[0]
    assert detector.update(sample) == other.update(sample)


def test_a_prompt_outside_the_clusters_changes_nothing(case: Case) -> None:
    draw, detector = np.random.default_rng(12), case.make()
    last = run(detector, case.usual(draw, 20), draw)[-1]
    state = pickle.dumps(detector.state())
    for cluster in (-1, CLUSTERS):
        assert detector.update(case.wrong(draw, 1)[0], cluster) == last
    assert pickle.dumps(detector.state()) == state


def test_reset_it_is_as_new(case: Case) -> None:
    draw, detector = np.random.default_rng(13), case.make()
    run(detector, case.wrong(draw, 30), draw)
    detector.reset()
    assert pickle.dumps(detector.state()) == pickle.dumps(case.make().state())


def test_the_run_length_to_a_false_alarm_is_at_least_what_is_declared(case: Case) -> None:
    """Exponential run lengths have a mean of 40 with a standard error of 16%; three of them below is too short."""
    draw, streams, horizon = np.random.default_rng(14), 40, int(6 * case.run_length)
    lengths = [first_above(run(case.make(), case.usual(draw, horizon), draw)) for _ in range(streams)]
    assert np.mean(lengths) > case.run_length * (1 - 3 / math.sqrt(streams))


# The MEWMA and its calibration.


def run_lengths(
    calibrated: Calibration, vectors: NDArray[Any], clusters: NDArray[np.intp], draw: np.random.Generator
) -> NDArray[Any]:
    """Of 40 streams drawn from fresh vectors, cut at six times the declared run length."""
    fitted, streams = calibrated.conditional, 40
    behind = fitted.doubt.reshape(len(fitted.doubt), -1)[clusters]
    rows = np.concatenate([(vectors - fitted.centre[clusters]) / fitted.scale[clusters], behind], axis=1)
    averages = Averages(calibrated.plan, fitted.doubt, streams)
    first = np.full(streams, int(6 * calibrated.run_length))
    for at in range(first[0]):
        picked = averages.push(rows[draw.integers(len(rows), size=streams)])
        over = ((picked - calibrated.mean) / calibrated.q).max(axis=(1, 2)) > calibrated.threshold
        first[over] = np.minimum(first[over], at + 1)
    return first


def kinds_of_questions(
    draw: np.random.Generator, count: int, mix: list[float]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Vectors whose mean and spread depend on the cluster."""
    clusters = draw.choice(4, size=count, p=mix)
    offsets = np.random.default_rng(0).normal(size=(4, DIMENSIONS)) * 0.4
    spreads = np.array([0.6, 0.8, 1.0, 1.4])[clusters, None]
    return offsets[clusters] + draw.normal(size=(count, DIMENSIONS)) * spreads, clusters


def baseline(refit: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """As whitening leaves them: centred on the mean of other samples."""
    draw = np.random.default_rng(100 + refit)
    centre = kinds_of_questions(draw, N, OWN)[0].mean(axis=0)
    vectors, clusters = kinds_of_questions(draw, N, OWN)
    return vectors - centre, clusters


OWN, OTHER = [0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]


@pytest.fixture(scope="module")
def refits() -> list[Calibration]:
    """Six baselines, calibrated with clusters."""
    made = []
    for refit in range(6):
        vectors, clusters = baseline(refit)
        made.append(calibrate(vectors, N, RUN_LENGTH, seed=refit, clusters=clusters))
    return made


def mean_run_length(calibrations: list[Calibration], mix: list[float]) -> float:
    """Over baselines, in declared run lengths."""
    means = []
    for at, each in enumerate(calibrations):
        draw = np.random.default_rng(200 + at)
        vectors, clusters = kinds_of_questions(draw, 4_000, mix)
        vectors -= kinds_of_questions(np.random.default_rng(100 + at), N, OWN)[0].mean(axis=0)
        if len(each.conditional.scale) == 1:
            clusters = np.zeros_like(clusters)
        means.append(run_lengths(each, vectors, clusters, draw).mean() / each.run_length)
    return float(np.mean(means))


def test_the_declared_run_length_is_held_with_the_baselines_own_mix_and_with_others(refits: list[Calibration]) -> None:
    """Means over 6 baselines, of which one varies by 45%: a standard error of 0.18, two of them to both sides."""
    assert 0.64 < mean_run_length(refits, OWN) < 1.6
    assert mean_run_length(refits, OTHER) > 0.6


def test_without_clusters_another_mix_of_questions_alarms() -> None:
    marginal = [calibrate(baseline(refit)[0], N, RUN_LENGTH, seed=refit) for refit in range(2)]
    assert mean_run_length(marginal, OTHER) < 0.3


def test_slow_rates_and_many_dimensions_need_a_large_baseline() -> None:
    assert Plan.admitted(384, 800).rates == (1 / 8, 1 / 24, 1 / 72, 1 / 200)
    assert Plan.admitted(384, 799).rates == (1 / 8, 1 / 24, 1 / 72)
    assert Plan.admitted(384, 800).dimensions == 128
    assert Plan.admitted(384, 300).blocks == (slice(0, 16), slice(16, 64), slice(64, 75))
    with pytest.raises(ValueError, match="31 samples"):
        Plan.admitted(384, 31)


def test_a_run_length_that_no_simulation_reaches_is_extrapolated_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(15)
    vectors = draw.normal(size=(N, DIMENSIONS))
    monkeypatch.setattr("palegreen.evaluators.detectors.calibrate.HORIZON", 2_000)
    near, far = (calibrate(vectors, N, length, seed=0) for length in (RUN_LENGTH, 1e6))
    assert near.how == "simulated"
    assert far.how.startswith("extrapolated log-linearly from run lengths of ")
    assert far.threshold > near.threshold


def test_a_calibration_is_the_same_again_from_its_arrays_and_from_its_seed() -> None:
    arrays = calibration().arrays()
    back = Calibration.of(arrays).arrays()
    assert all(np.array_equal(arrays[name], back[name]) for name in arrays)
    calibration.cache_clear()
    again = calibration().arrays()
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.full((N, DIMENSIONS), 1.0), "all the same"),
        (np.full((N, DIMENSIONS), np.nan), "sample 0: its vector holds NaN"),
        (np.zeros((1, DIMENSIONS)), "two samples or more"),
    ],
)
def test_a_baseline_that_says_nothing_is_refused_in_words(vectors: NDArray[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrate(vectors, N, RUN_LENGTH, seed=0)


def test_clusters_are_centred_and_scaled_as_far_as_they_truly_differ() -> None:
    draw = np.random.default_rng(16)
    vectors, clusters = kinds_of_questions(draw, 4_000, OWN)
    vectors -= vectors.mean(axis=0)
    fitted = Conditional.fit(vectors, clusters, 4, [slice(0, 16), slice(16, DIMENSIONS)], 4_000)
    scaled = (vectors - fitted.centre[clusters]) / fitted.scale[clusters]
    for cluster in range(4):
        own = scaled[clusters == cluster]
        assert abs(own.mean(axis=0)).max() < 0.1
        assert own.var() == pytest.approx(1, abs=0.05)
    alike = Conditional.fit(draw.normal(size=(4_000, DIMENSIONS)), clusters, 4, [slice(0, DIMENSIONS)], 4_000)
    assert abs(alike.centre).max() < 0.05
    assert alike.doubt.max() < fitted.doubt.max()


# Limits, combination, latch.


@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.5, 0.05, 1e-4]))
def test_the_bound_of_a_rate_is_where_so_few_failures_become_improbable(ones: int, n: int, alpha: float) -> None:
    ones = min(ones, n)
    bound = rate_bound(np.repeat([1.0, 0.0], [ones, n - ones]), alpha)
    if ones == n:
        assert bound == 1
    else:
        tail = sum(math.comb(n, k) * bound**k * (1 - bound) ** (n - k) for k in range(ones + 1))
        assert tail == pytest.approx(alpha, rel=1e-6)


def test_the_bound_of_a_mean_holds_as_often_as_it_says_and_narrows_with_samples() -> None:
    draw = np.random.default_rng(17)
    missed = sum(mean_bound(draw.beta(3, 7, size=50), 0.1) < 0.3 for _ in range(200))
    assert missed < 200 * 0.1 + 3 * math.sqrt(200 * 0.1 * 0.9)
    few, many = (mean_bound(draw.beta(3, 7, size=n), 1e-4) for n in (50, 2_000))
    assert 0.3 < many < 0.33 < few < 0.6
    assert mean_bound(np.empty(0), 0.1) == rate_bound(np.empty(0), 0.1) == 1


def test_each_cluster_has_its_own_limit_with_a_tolerance_and_none_without_samples() -> None:
    clusters = np.repeat([0, 1], 1_000)
    values = np.concatenate([np.zeros(1_000), np.tile([0.0, 1.0], 500)])
    low, half, unknown = limits(values, clusters, 3, checks=10)
    assert 0.005 < low < 0.02
    assert 0.6 < half < 0.75
    assert unknown == 1
    detector = EDetector([low, half, unknown], RUN_LENGTH)
    assert [detector.update(1.0, 2) for _ in range(500)][-1] == 0
    with pytest.raises(ValueError, match="not in"):
        limits(np.array([2.0]), np.zeros(1, np.intp), 1, checks=1)


def test_evidence_is_averaged_over_all_detectors_that_there_can_be() -> None:
    quiet, loud = (EDetector([0.1], 100) for _ in range(2))
    for _ in range(2_000):
        quiet.update(0.0)
        loud.update(1.0)
    assert loud.evidence == 100 * 100
    assert quiet.evidence == pytest.approx(REST)
    assert combined([quiet, loud], 2, 100) == pytest.approx(math.log(5_000 / REST + 0.5) / math.log(100 / REST))
    assert combined([loud], 10, 100) == pytest.approx(math.log(1_000 / REST) / math.log(100 / REST))
    assert combined([loud], 100, 100) == 1
    assert combined([quiet], 1, 100) == pytest.approx(0, abs=1e-9)
    assert combined([], 10, 100) == 0
    assert allotted(1_000, 2 * 3) == 6_000


def test_an_alarm_is_raised_once_an_excursion_and_released_when_it_is_over() -> None:
    latch = Latch()
    turns = [latch.update(ratio) for ratio in [0.2] * WARM_UP + [1.2, 0.9, 1.3] + [0.4] * (HOLD - 1)]
    assert [turn for turn in turns if turn] == [Turn.RAISED]
    assert turns[WARM_UP] is Turn.RAISED
    assert latch.raised
    assert latch.update(0.6) is None
    assert [latch.update(0.4) for _ in range(HOLD)] == [None] * (HOLD - 1) + [Turn.RELEASED]
    assert not latch.raised


def test_an_alarm_of_evidence_ends_with_a_short_run_length_too() -> None:
    """At the least that can be declared, 100 samples, twice as many for the checks."""
    draw, detector, latch = np.random.default_rng(18), EDetector([2 * RATE], 200), Latch()
    for _ in range(100):
        latch.update(detector.update(1.0))
    assert latch.raised
    assert Turn.RELEASED in [latch.update(detector.update(float(draw.random() < RATE))) for _ in range(600)]


def test_nothing_is_raised_while_warming_up_or_cooling_down() -> None:
    latch = Latch()
    assert [latch.update(2) for _ in range(WARM_UP + 1)] == [None] * WARM_UP + [Turn.RAISED]
    for _ in range(HOLD):
        latch.update(0)
    assert [latch.update(2) for _ in range(COOL_DOWN + 1)] == [None] * COOL_DOWN + [Turn.RAISED]


@given(st.lists(st.floats(0, 2), max_size=300), st.lists(st.floats(0, 2), max_size=100))
def test_a_latch_goes_on_from_its_state(before: list[float], after: list[float]) -> None:
    latch, restarted = Latch(), Latch()
    for ratio in before:
        latch.update(ratio)
    restarted.restore(latch.state())
    assert [latch.update(ratio) for ratio in after] == [restarted.update(ratio) for ratio in after]
    with pytest.raises(ValueError, match="latch"):
        restarted.restore({"latch": np.array([-1, 0, 0])})
