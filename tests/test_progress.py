"""Forward progress: a hung engine is told from a saturated one, a loading one and one that is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.replica import Replica as Fake
from support.server import Server, response

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import Replica
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.evidence import counters, moved
from palegreen.evaluators.probes.progress import STATES, Progress
from palegreen.evaluators.taps.passing import Passing, last_passed
from palegreen.runtime.exposition import Collected


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress(fake: Fake, clock: Clock, **given: Any) -> Progress:
    canary = CanaryConfig(url=fake.url)
    config = EvaluateConfig(sink_address="127.0.0.1:0", canary=canary)
    chat = Chat(Replica(fake.url, clock=fake.clock), detailed=False)
    return Progress(config, canary, chat, given.pop("model", "small"), clock=clock, wall=lambda: clock.now, **given)


def shown(probe: Progress) -> dict[str, float]:
    collected = Collected()
    probe.show(collected)
    lines = collected.readings().lines
    states = lines.get("palegreen_engine_progress", "").splitlines()
    found = {line.split('state="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in states}
    when = lines.get("palegreen_forward_progress_timestamp_seconds", "").strip()
    return found | ({"when": float(when.rsplit(" ", 1)[1])} if when else {})


def test_an_answer_is_progress_and_exactly_one_state_is_held() -> None:
    clock = Clock()
    with Fake() as fake:
        probe = progress(fake, clock)
        assert shown(probe) == {}
        probe.run(Event())
        assert shown(probe) == {state: float(state == "progress") for state in STATES} | {"when": 1000.0}
        body = fake.asked[0]
        assert (body["max_tokens"], body["user"], body["model"]) == (1, "palegreen-canary", "small")
        assert "logprobs" not in body
        headers = next(headers for path, headers, _ in fake.requests if path == "/v1/chat/completions")
        assert headers["x-palegreen-canary"] == "1"


def test_an_engine_that_answers_nobody_is_hung_once_it_has_been_silent_for_long_enough_whatever_its_health_says() -> (
    None
):
    clock = Clock()
    with Fake() as fake:
        probe = progress(fake, clock)
        probe.run(Event())
        fake.mode = "hung"
        clock.now += 15
        probe.run(Event())
        assert probe.state == "saturated"
        clock.now += 15
        probe.run(Event())
        assert probe.state == "hung"
        assert shown(probe)["when"] == 1000.0
        fake.mode = "well"
        probe.run(Event())
        assert probe.state == "progress"


def test_an_engine_that_makes_tokens_for_others_is_saturated_however_long_we_wait_and_that_is_progress() -> None:
    clock = Clock()
    with Fake() as fake:
        probe = progress(fake, clock)
        fake.mode = "saturated"
        for _ in range(3):
            clock.now += 100
            probe.run(Event())
            assert probe.state == "saturated"
        assert shown(probe)["when"] == clock.now


def test_a_metrics_page_that_is_late_is_compared_with_what_it_said_before() -> None:
    looks: Iterator[Mapping[str, float] | None] = iter([{"made": 1.0}, None, {"made": 5.0}, None, None])
    clock = Clock()
    with Fake() as fake:
        probe = progress(fake, clock, look=lambda _: next(looks))
        probe.run(Event())
        fake.mode = "hung"
        clock.now += 500
        probe.run(Event())
        assert probe.state == "saturated"
        clock.now += 500
        probe.run(Event())
        assert probe.state == "hung"


def test_tokens_that_pass_through_our_own_proxy_are_progress_too(tmp_path: Path) -> None:
    clock = Clock()
    with Fake(metrics=False) as fake:
        queue = tmp_path / "queue"
        probe = progress(fake, clock, passing=lambda: last_passed(queue))
        fake.mode = "hung"
        clock.now += 500
        Passing(queue).note(clock.now + 1)
        probe.run(Event())
        assert probe.state == "saturated"
        clock.now += 500
        probe.run(Event())
        assert probe.state == "hung"


def test_without_any_other_evidence_an_engine_is_called_hung_later_and_still_within_two_minutes() -> None:
    clock = Clock()
    with Fake(metrics=False) as fake:
        probe = progress(fake, clock)
        probe.run(Event())
        fake.mode = "hung"
        states = []
        while clock.now < 1120:
            clock.now += 15
            probe.run(Event())
            states.append(probe.state)
        assert states == ["saturated"] * 4 + ["hung"] * 4


def test_a_busy_engine_that_answers_nothing_else_is_waited_for_longer_the_second_time() -> None:
    clock, waits = Clock(), []

    class Waiting(Chat):
        def ask(self, request: dict[str, Any], *, timeout: float, stopped: Event) -> Any:
            waits.append(timeout)
            return super().ask(request, timeout=timeout, stopped=stopped)

    with Fake(metrics=False) as fake:
        canary = CanaryConfig(url=fake.url)
        config = EvaluateConfig(sink_address="127.0.0.1:0", canary=canary)
        chat = Waiting(Replica(fake.url, clock=fake.clock), detailed=False)
        probe = Progress(config, canary, chat, "small", clock=clock)
        fake.mode = "hung"
        clock.now += 25
        probe.run(Event())
        fake.mode = "well"  # its queue has come to us
        probe.run(Event())
        assert probe.state == "progress"
        probe.run(Event())
    assert waits == [10, 50, 10]


@pytest.mark.parametrize(
    ("mode", "state"),
    [
        ("loading", "loading"), ("busy", "saturated"), ("failing", "down"), ("refusing", "unknown"),
        ("garbage", "unknown"),
    ],
)  # fmt: skip
def test_what_an_engine_refuses_with_says_its_state(mode: str, state: str) -> None:
    with Fake() as fake:
        probe = progress(fake, Clock())
        fake.mode = mode
        probe.run(Event())
        assert probe.state == state


def test_an_engine_that_cannot_be_connected_to_is_down() -> None:
    with Fake() as fake:
        probe = progress(fake, Clock())
    probe.run(Event())
    assert probe.state == "down"


def test_without_a_name_the_first_model_that_the_engine_lists_is_asked_for() -> None:
    with Fake(model="served-name") as fake:
        progress(fake, Clock(), model="").run(Event())
        assert fake.asked[0]["model"] == "served-name"


def test_a_round_that_is_stopped_changes_nothing() -> None:
    stopped = Event()
    stopped.set()
    with Fake() as fake:
        probe = progress(fake, Clock())
        probe.run(stopped)
        assert shown(probe) == {}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1.0}, {"a": 2.0}, True), ({"a": 2.0}, {"a": 2.0}, False), (None, {"a": 2.0}, False),
        ({"a": 2.0}, None, False), ({"a": 5.0}, {"a": 1.0}, False), ({"a": 1.0}, {"a": 1.0, "b": 3.0}, False),
    ],
)  # fmt: skip
def test_counters_that_rise_are_work_and_those_that_restart_or_appear_are_not(
    before: Mapping[str, float] | None, after: Mapping[str, float] | None, expected: bool
) -> None:
    assert moved(before, after) is expected


@pytest.mark.parametrize(
    ("page", "series"),
    [
        ("llamacpp-b11669-real.prom", "llamacpp:n_decode_total"), ("vllm.prom", "vllm:generation_tokens_total"),
        ("sglang.prom", "sglang:generation_tokens_total"), ("tgi.prom", "tgi_request_generated_tokens_sum"),
    ],
)  # fmt: skip
def test_counters_of_tokens_are_read_from_recorded_pages_of_engines(page: str, series: str) -> None:
    recorded = (Path(__file__).parent / "captures" / "engines" / page).read_text(encoding="utf-8")
    with Server({"/metrics": response(recorded)}) as server:
        found = counters(Replica(server.url), Event())
    assert found is not None
    assert any(key.startswith(series) for key in found)
