"""Which exchanges are held: rate, sessions, budget, tags."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.taps.sampling import AT_RATE, KEPT, MAX_SESSIONS, Decision, Sampler

TOO_MANY = Decision(None, "budget")
SAME_SESSION = Decision(None, "session")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_kept_and_a_seed_repeats_it() -> None:
    def decisions() -> list[Decision]:
        sampler = Sampler(0.2, draw=random.Random(7).random)
        return [sampler.decide() for _ in range(10_000)]

    counts = Counter(decisions())
    assert decisions() == decisions()
    assert 1_850 < counts[AT_RATE] < 2_150
    assert counts[Decision(None, "rate")] == 10_000 - counts[AT_RATE]


def test_rates_of_one_and_zero_mean_all_and_none() -> None:
    assert all(Sampler(1.0).decide() == AT_RATE for _ in range(1000))
    assert not any(Sampler(0.0).decide().sampled for _ in range(1000))


def test_a_tagged_request_is_kept_whatever_the_rules_and_uses_up_nothing() -> None:
    sampler = Sampler(1.0, session_interval=60, per_second=1, clock=Clock())
    assert [sampler.decide("s", tagged=True) for _ in range(5)] == [KEPT] * 5
    assert sampler.decide("s") == AT_RATE
    assert Sampler(0.0).decide(tagged=True) == KEPT


def test_a_session_is_sampled_at_most_once_an_interval() -> None:
    clock = Clock()
    sampler = Sampler(session_interval=60, clock=clock)
    assert [sampler.decide("a"), sampler.decide("b"), sampler.decide("a")] == [AT_RATE, AT_RATE, SAME_SESSION]
    clock.now += 59.9
    assert sampler.decide("a") == SAME_SESSION
    clock.now += 0.1
    assert sampler.decide("a") == AT_RATE
    assert sampler.decide("a") == SAME_SESSION


def test_requests_without_a_session_are_not_one_session() -> None:
    sampler = Sampler(session_interval=60)
    assert [sampler.decide() for _ in range(3)] == [AT_RATE] * 3


def test_the_budget_allows_a_seconds_worth_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    sampler = Sampler(per_second=10, clock=clock)
    assert Counter(sampler.decide() for _ in range(100)) == {AT_RATE: 10, TOO_MANY: 90}
    clock.now += 0.5
    assert Counter(sampler.decide() for _ in range(100)) == {AT_RATE: 5, TOO_MANY: 95}
    clock.now += 3600
    assert Counter(sampler.decide() for _ in range(100)) == {AT_RATE: 10, TOO_MANY: 90}


def test_a_budget_below_one_a_second_lets_one_through_now_and_then() -> None:
    clock = Clock()
    sampler = Sampler(per_second=0.1, clock=clock)
    passed = 0
    for _ in range(100):
        passed += sampler.decide() == AT_RATE
        clock.now += 1
    assert passed == 10


def test_a_session_that_the_budget_refused_is_not_taken_for_sampled() -> None:
    clock = Clock()
    sampler = Sampler(session_interval=60, per_second=1, clock=clock)
    assert [sampler.decide("a"), sampler.decide("b")] == [AT_RATE, TOO_MANY]
    clock.now += 1
    assert sampler.decide("b") == AT_RATE


def test_a_thousand_new_sessions_a_second_for_an_hour_are_remembered_only_as_far_as_there_is_room() -> None:
    clock = Clock()
    sampler = Sampler(session_interval=3600, clock=clock)
    for number in range(MAX_SESSIONS + 10):
        assert sampler.decide(f"{number}") == AT_RATE
        clock.now += 0.001
    assert sampler.decide(f"{MAX_SESSIONS}") == SAME_SESSION
    assert sampler.decide("10") == SAME_SESSION
    assert sampler.decide("0") == AT_RATE  # the oldest were forgotten


@given(steps=st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from("abc")), max_size=60))
def test_whatever_the_clock_does_the_budget_and_the_intervals_stay_bounds(steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    sampler = Sampler(session_interval=10, per_second=2, clock=clock)
    forward = 0.0
    sampled = 0
    for step, session in steps:
        clock.now += step
        forward += max(0.0, step)
        sampled += sampler.decide(session) == AT_RATE
    assert sampled <= 2 + 2 * forward


def test_it_is_made_from_the_configuration() -> None:
    config = EvaluateConfig(sample_rate=0.0, keep_errors=False)
    sampler = Sampler.of(config)
    assert sampler.decide() == Decision(None, "rate")
    assert not sampler.keeps_error()
