"""Change markers: a change is a value that was not there lately, never one of several that take turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.deploy.markers import NEAR, VARIES, WINDOW, Change, Markers
from palegreen.evaluators.sample import Sample

NOW = 1_800_000_000.0


def markers(known: Any = None) -> Markers:
    return Markers(known, clock=lambda: NOW)


def sample(**fields: Any) -> Sample:
    given: dict[str, Any] = {"response": "Yes.", "model": "m", "endpoint": "chat", "replica": "r0", "time": NOW - 100}
    return Sample(**given | fields)


def prompted(system: str = "Be brief.", **fields: Any) -> Sample:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "Why?"}]
    return sample(messages=messages, **fields)


def moved(found: Markers, samples: list[Sample]) -> list[Change]:
    return [change for each in samples for change in found.observe(each)]


def test_a_new_fingerprint_is_one_change_and_taking_turns_with_the_old_one_is_none() -> None:
    found = markers()
    assert not moved(found, [sample(system_fingerprint="fp_a")] * 10)
    (change,) = found.observe(sample(system_fingerprint="fp_b"))
    assert (change.marker, change.replica, change.at) == ("system_fingerprint", "r0", NOW - 100)
    assert not moved(found, [sample(system_fingerprint=name) for name in ("fp_a", "fp_b") * 200])


def test_the_return_of_a_value_that_has_been_gone_for_long_is_a_change_too() -> None:
    found = markers()
    moved(found, [sample(system_fingerprint="fp_a"), *[sample(system_fingerprint="fp_b")] * (WINDOW + 1)])
    assert [change.marker for change in found.observe(sample(system_fingerprint="fp_a"))] == ["system_fingerprint"]


def test_replicas_are_kept_apart() -> None:
    found = markers()
    names = {"r0": "fp_a", "r1": "fp_b"}
    assert not moved(found, [sample(replica=r, system_fingerprint=names[r]) for r in names] * 5)
    (change,) = found.observe(sample(replica="r1", system_fingerprint="fp_a"))
    assert change.replica == "r1"


@pytest.mark.parametrize(
    "after",
    [
        prompted("Be brief and kind."),
        prompted(tools=[{"name": "look_up"}]),
        sample(messages=[{"role": "user", "content": "Why?"}]),
    ],
    ids=["another prompt", "a tool more", "no system prompt"],
)
def test_another_construction_of_the_prompt_is_a_change_once_it_has_come_a_few_times(after: Sample) -> None:
    found = markers()
    assert not moved(found, [prompted()] * 20)
    assert [change.marker for change in moved(found, [after, prompted()] * 20)] == ["prompt"]


def test_prompts_of_different_routes_are_no_change_of_one_another() -> None:
    found = markers()
    routes = {"/v1/chat": "Be brief.", "/v1/code": "Write code."}
    assert not moved(found, [prompted(routes[route], route=route) for route in routes] * 20)


def test_a_date_in_a_prompt_is_no_change() -> None:
    found = markers()
    days = ["Saturday, November 21, 2026", "Sunday, November 22, 2026", "Tuesday, December 1, 2026"]
    assert not moved(found, [prompted(f"Today is {day}. Be brief.") for day in days for _ in range(20)])


def test_a_prompt_that_holds_something_of_each_user_falls_silent() -> None:
    found = markers()
    users = [prompted(f"You talk to {chr(97 + n % 26)}{chr(97 + n // 26)}.") for n in range(200)]
    assert len(moved(found, [each for each in users for _ in range(6)])) <= VARIES


def test_a_request_that_was_cut_or_an_error_or_a_kept_sample_tells_nothing() -> None:
    found = markers()
    moved(found, [prompted(system_fingerprint="fp_a")] * 10)
    for fields in ({"truncated": True}, {"status": 500, "system_fingerprint": "b"}, {"sampled": "kept"}):
        assert not moved(found, [prompted("Another.", **fields)] * 10)


def test_another_model_behind_the_name_that_is_asked_for_is_a_change_and_another_request_is_none() -> None:
    found = markers()
    asked = [sample(requested_model="gpt-x", model="gpt-x-2026-08-06")] * 5
    assert not moved(found, [*asked, sample(requested_model="other", model="other")])
    (change,) = found.observe(sample(requested_model="gpt-x", model="gpt-x-2026-11-01"))
    assert change.marker == "served_model"


def test_what_is_told_holds_no_text() -> None:
    found = markers()
    secret = prompted("The password is swordfish.", requested_model="swordfish", system_fingerprint="swordfish")
    changes = moved(found, [prompted(requested_model="x", system_fingerprint="a"), *[secret] * 10])
    told = json.dumps([found.state(), [change.what for change in changes]])
    assert len(changes) == 2
    assert "swordfish" not in told


def test_another_process_goes_on_with_what_is_known() -> None:
    first = markers()
    moved(first, [prompted(system_fingerprint="fp_a")] * 10)
    first.deploy(NOW - 50, "request", "r0")
    second = markers(json.loads(json.dumps(first.state())))
    (change,) = second.observe(prompted(system_fingerprint="fp_b"))
    assert change.marker == "system_fingerprint"
    assert second.near("r0", NOW - 100) == ["system_fingerprint", "request"]


@pytest.mark.parametrize("known", [{"scopes": 7}, {"scopes": {"a": [1]}}, {"recent": [1]}, {"recent": [["x", 1, 2]]}])
def test_what_an_unknown_version_has_left_is_passed_over(known: Any) -> None:
    assert not markers(known).observe(sample(system_fingerprint="fp_a"))


def test_near_tells_the_changes_of_a_replica_about_a_time() -> None:
    found = markers()
    moved(found, [sample(system_fingerprint="fp_a"), sample(system_fingerprint="fp_b", time=NOW - 10_000)])
    found.deploy(NOW - 9_000, "request", "r1")
    found.deploy(NOW - 8_000, "model_fingerprint", "")
    assert found.near("r0", NOW - 10_000 + NEAR) == ["system_fingerprint", "model_fingerprint"]
    assert found.near("r0", NOW - 10_000 + NEAR + 1) == ["model_fingerprint"]
    assert found.near("r1", NOW - 10_000) == ["request", "model_fingerprint"]
    assert found.deployed == NOW - 8_000


def test_a_time_of_the_future_is_the_clock_s() -> None:
    found = markers()
    changes = moved(found, [sample(system_fingerprint=name, time=NOW * 2) for name in ("fp_a", "fp_b")])
    assert [change.at for change in changes] == [NOW]


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.integers(0, 400)), max_size=600))
def test_it_is_bounded_whatever_comes(seen: list[tuple[str, int]]) -> None:
    found = markers()
    for value, replica in seen:
        found.observe(sample(system_fingerprint=value, replica=f"r{replica}"))
    found.untold()
    assert len(json.dumps(found.state())) < 300_000
