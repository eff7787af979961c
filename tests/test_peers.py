"""Replicas and revisions compared by PromQL alone: the rules in Prometheus's own engine, against numpy and scipy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from support.peers import Replica, distances, recorded
from support.rules import Recording, Result, by, evaluate

from palegreen.catalogue.peers import Parameters, render, rules
from palegreen.evaluators.replicas.projection import DIMENSIONS

ROOT = Path(__file__).parent.parent
SCRAPES = 51  # a minute apart: the last at 50 minutes
QUICK = Parameters(window="20m", hold="10m", ago="20m", interval="5m")
ASKED = (
    "palegreen:peer_verdict", "palegreen:peers_differ", "palegreen:peer_far", "palegreen:peer_check_held",
    "palegreen:revision_verdict", "palegreen:revision_checks_verdict", "palegreen:fleet_far",
    "palegreen:replica_torn",
)  # fmt: skip


def _shift(size: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Answers that lie elsewhere in a quarter of the features, by so many standard deviations each."""
    shift = np.zeros(DIMENSIONS)
    shift[: DIMENSIONS // 4] = size
    return shift


def _replicas() -> Iterator[Replica]:
    """One model a situation."""
    for at in range(8):
        yield Replica("one-of-eight", str(at), shift=_shift(1.0 if at == 3 else 0))
    for at in range(6):
        yield Replica("two-of-six", str(at), shift=_shift(1.0 if at in (1, 4) else 0))
    for at in range(3):
        yield Replica("one-of-three", str(at), shift=_shift(1.0 if at == 1 else 0))
        yield Replica("other-prompts", str(at), prompt_shift=_shift(1.0 if at == 1 else 0))
        yield Replica("restarted", str(at), restarts=(27, 33, 34, 41, 47) if at == 1 else ())
    for at in range(2):
        yield Replica("two", str(at), shift=_shift(1.0 if at == 1 else 0))
    for at in range(4):
        yield Replica("two-of-four", str(at), shift=_shift(1.0 if at > 1 else 0))
    for at in range(3):
        yield Replica("looping", str(at), restarts=tuple(range(20, SCRAPES)) if at == 1 else ())
        yield Replica("few", str(at), shift=_shift(2 if at == 1 else 0), rate=1.2 if at == 1 else 8)
        yield Replica("failing", str(at), fails=0.3 if at == 1 else 0.02)
        yield Replica("together", str(at), shift=_shift(1.0), since=26)
        yield Replica("lately", str(at), shift=_shift(4 if at == 1 else 0), since=47)
    for at, revision in enumerate(("stable", "stable", "canary")):
        canary = revision == "canary"
        yield Replica("wrong", str(at), revision=revision, shift=_shift(1.0 if canary else 0), rate=12)
        yield Replica("right", str(at), revision=revision, rate=12)
        yield Replica("young", str(at), revision=revision, rate=4)
        yield Replica("worse", str(at), revision=revision, fails=0.2 if canary else 0.02, rate=12)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What the rules say of each situation at the end."""
    asked = [(name, f"{SCRAPES - 1}m") for name in ASKED]
    seen: dict[str, Result] = {name: {} for name in ASKED}
    models: dict[str, list[Replica]] = defaultdict(list)
    for replica in _replicas():
        models[replica.model].append(replica)
    fleets: list[list[Replica]] = [[]]
    for fleet in models.values():  # promtool's engine holds 10,000 samples, no more: those of some 20 replicas
        if len(fleets[-1]) + len(fleet) > 17:
            fleets.append([])
        fleets[-1] += fleet
    for fleet in fleets:
        recording = recorded(fleet, SCRAPES, seed=3)
        folder = tmp_path_factory.mktemp("peers")
        for name, result in zip(ASKED, evaluate(folder, render(QUICK), recording, "1m", "5m", asked), strict=True):
            seen[name] |= result
    return seen


def _of(result: Result, model: str, label: str = "pod") -> dict[str, float]:
    return {
        key[1].removeprefix(f"{model}-"): value for key, value in by(result, "model", label).items() if key[0] == model
    }


def test_one_bad_replica_of_eight_is_named(seen: dict[str, Result]) -> None:
    assert _of(seen["palegreen:peer_verdict"], "one-of-eight") == {str(at): -1 if at == 3 else 1 for at in range(8)}
    assert _of(seen["palegreen:peers_differ"], "one-of-eight", "endpoint") == {"e": 0}


def test_one_bad_replica_of_three_is_named_and_the_others_agree_though_it_is_among_their_peers(
    seen: dict[str, Result],
) -> None:
    assert _of(seen["palegreen:peer_far"], "one-of-three").items() >= {"0": 1, "2": 1}.items()
    assert _of(seen["palegreen:peer_verdict"], "one-of-three") == {"0": 1, "1": -1, "2": 1}


def test_two_bad_replicas_of_six_are_both_named(seen: dict[str, Result]) -> None:
    verdicts = _of(seen["palegreen:peer_verdict"], "two-of-six")
    assert verdicts == {str(at): -1 if at in (1, 4) else 1 for at in range(6)}


@pytest.mark.parametrize("model", ["two", "two-of-four"])
def test_where_no_majority_is_left_they_differ_and_nobody_is_named(seen: dict[str, Result], model: str) -> None:
    assert set(_of(seen["palegreen:peer_verdict"], model).values()) == {0}
    assert _of(seen["palegreen:peers_differ"], model, "endpoint") == {"e": 1}


def test_different_prompts_to_one_replica_raise_nothing_and_leave_it_undecided(seen: dict[str, Result]) -> None:
    assert _of(seen["palegreen:peer_verdict"], "other-prompts")["1"] == 0
    assert -1 not in _of(seen["palegreen:peer_verdict"], "other-prompts").values()
    assert _of(seen["palegreen:peers_differ"], "other-prompts", "endpoint").get("e", 0) == 0


def test_restarts_of_a_replica_raise_nothing(seen: dict[str, Result]) -> None:
    assert -1 not in _of(seen["palegreen:peer_verdict"], "restarted").values()
    assert _of(seen["palegreen:peers_differ"], "restarted", "endpoint") == {"e": 0}


def test_a_replica_that_restarts_again_and_again_tears_its_counters_and_is_left_out(seen: dict[str, Result]) -> None:
    assert {dict(key)["pod"] for key in seen["palegreen:replica_torn"]} >= {"looping-1"}
    assert _of(seen["palegreen:peer_verdict"], "looping") == {"0": 1, "1": 0, "2": 1}


def test_a_replica_with_fewer_than_50_samples_is_undecided_and_not_healthy(seen: dict[str, Result]) -> None:
    assert _of(seen["palegreen:peer_verdict"], "few") == {"0": 1, "1": 0, "2": 1}


def test_a_difference_that_has_not_been_held_is_undecided(seen: dict[str, Result]) -> None:
    assert _of(seen["palegreen:peer_far"], "lately")["1"] == 1
    assert _of(seen["palegreen:peer_verdict"], "lately")["1"] == 0


def test_a_replica_that_fails_a_check_oftener_is_named_by_it(seen: dict[str, Result]) -> None:
    assert _of(seen["palegreen:peer_check_held"], "failing") == {"1": 1}
    assert _of(seen["palegreen:peer_verdict"], "failing") == {"0": 1, "1": -1, "2": 1}


def test_replicas_that_change_together_agree_and_the_fleet_differs_from_before(seen: dict[str, Result]) -> None:
    assert set(_of(seen["palegreen:peer_verdict"], "together").values()) == {1}
    assert _of(seen["palegreen:fleet_far"], "together", "endpoint") == {"e": 1}
    assert _of(seen["palegreen:fleet_far"], "one-of-eight", "endpoint") == {"e": 0}


@pytest.mark.parametrize(("model", "verdict"), [("wrong", -1), ("right", 1), ("young", 0), ("worse", -1)])
def test_a_canary_revision_passes_fails_or_waits_for_samples(seen: dict[str, Result], model: str, verdict: int) -> None:
    assert _of(seen["palegreen:revision_verdict"], model, "revision")["canary"] == verdict


def test_only_the_revision_that_fails_checks_oftener_fails_for_it(seen: dict[str, Result]) -> None:
    assert _of(seen["palegreen:revision_checks_verdict"], "worse", "revision") == {"stable": 1, "canary": -1}
    assert _of(seen["palegreen:revision_checks_verdict"], "wrong", "revision") == {"stable": 1, "canary": 1}


def test_the_statistic_is_that_of_numpy_within_one_percent(tmp_path: Path) -> None:
    fleet = [Replica("m", str(at), shift=_shift(0.4 if at == 2 else 0), rate=1.0, restarts=()) for at in range(3)]
    scrapes = 261  # 15 s apart
    recording = recorded(fleet, scrapes, seed=5)
    asked = [(f'palegreen:peer_distance{{channel="{channel}"}}', "65m") for channel in ("response", "prompt")]
    found = evaluate(tmp_path, render(Parameters(interval="65m")), recording, "15s", "65m", asked)
    for channel, result in zip(("response", "prompt"), found, strict=True):
        wanted = distances([replica.within(channel, scrapes - 240, scrapes - 1) for replica in fleet])
        assert list(by(result, "pod").values()) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(("mean", "variance", "off"), [(32.0, 64.0, 0.01), (40.0, 200.0, 0.03), (60.0, 800.0, 0.03)])
def test_the_threshold_is_the_quantile_of_chi_squared_within_one_percent_and_of_its_multiples_within_three(
    tmp_path: Path, mean: float, variance: float, off: float
) -> None:
    wanted_rules = [rule for rule in rules()["groups"][0]["rules"] if rule["record"].startswith("palegreen:peer_")]
    wanted_rules = [rule for rule in wanted_rules if rule["record"].endswith(("_tail", "_quantile", "_threshold"))]
    text = yaml.safe_dump({"groups": [{"name": "g", "rules": wanted_rules}]})
    recording, fleets = Recording(), (2, 3, 8, 64, 500)
    for size in fleets:
        labels = f'model="{size}",endpoint="e",channel="response",basis="b"'
        recording.series(f"palegreen:chance_distance_mean{{{labels}}}", [mean])
        recording.series(f"palegreen:chance_distance_variance{{{labels}}}", [variance])
        for at in range(size):
            recording.series(f'palegreen:peer_decided_samples{{{labels},pod="{at}"}}', [100])
    (found,) = evaluate(tmp_path, text, recording, "1m", "1m", [("palegreen:peer_threshold", "0m")])
    scale, degrees = variance / (2 * mean), 2 * mean**2 / variance
    for size in fleets:
        exact = scale * stats.chi2.isf(1 / (720 * size), degrees)
        assert by(found, "model")[str(size)] == pytest.approx(exact, rel=off)


@pytest.mark.parametrize("sides", [(50, 50), (50, 1000), (200, 3000), (1000, 200)])
def test_the_evidence_of_a_check_is_exceeded_by_chance_no_oftener_than_it_says(sides: tuple[int, int]) -> None:
    own, rest = sides
    total = own + rest
    for fails in {2, 5, 20, total // 20, total // 2}:
        count = np.arange(max(0, fails - rest), min(own, fails) + 1)
        chance = stats.hypergeom.pmf(count, total, fails, own)
        expected = fails / total

        def likelihood(share: np.ndarray[tuple[int], np.dtype[np.float64]], common: float) -> np.ndarray:  # type: ignore[type-arg]
            pairs = ((share, common), (1 - share, 1 - common))
            return sum(part * np.log(np.maximum(part / of, 1e-300)) for part, of in pairs)  # type: ignore[return-value]

        evidence = own * likelihood(count / own, expected) + rest * likelihood((fails - count) / rest, expected)
        worse = count / own > (fails - count) / rest
        for tail in (1e-2, 1e-4, 1e-6):
            assert chance[worse & (evidence > -math.log(tail))].sum() <= 1.05 * tail


def test_the_rules_in_the_documentation_are_those_that_are_generated() -> None:
    assert (ROOT / "docs" / "examples" / "peers.rules.yaml").read_text(encoding="utf-8") == render()


def test_a_duration_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="got '1 hour'; allowed: a whole number and one of s, m, h, d, w"):
        rules(Parameters(window="1 hour"))
