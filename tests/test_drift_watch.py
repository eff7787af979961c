"""What compares each sample with the baseline: what alarms, what it says of the reason, and what it remembers."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.drifting import SEGMENTS, baseline, feed, model, scored, traffic

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.detectors.combine import combined
from palegreen.evaluators.detectors.edetector import EDetector
from palegreen.evaluators.detectors.latch import Turn
from palegreen.evaluators.drift.alarm import Alarm, Event
from palegreen.evaluators.drift.change import located
from palegreen.evaluators.drift.evidence import Evidence, Rows
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.ring import packed, unpacked
from palegreen.evaluators.drift.state import Keeper
from palegreen.evaluators.drift.watch import REPLICAS, SILENT, Watch
from palegreen.evaluators.sample import Sample
from palegreen.runtime.exposition import Collected

USUAL = 100
"""Samples before something changes."""


def watch(**options: Any) -> Watch:
    return Watch(model(), SEGMENTS[:2], **options)


def raised(events: Sequence[Event]) -> dict[str, Alarm]:
    """The first alarm of each channel."""
    found: dict[str, Alarm] = {}
    for turn, alarm, _, _ in events:
        if turn is Turn.RAISED:
            found.setdefault(alarm.channel, alarm)
    return found


def after_usual(changed: Sequence[Sample], **options: Any) -> dict[str, Alarm]:
    watched = watch(**options)
    assert not any(alarm.pages for alarm in raised(feed(watched, traffic(USUAL, 1))).values())
    return raised(feed(watched, changed))


def cut(samples: Sequence[Sample], every: int = 2) -> list[Sample]:
    return [replace(each, finish_reason="length") if at % every == 0 else each for at, each in enumerate(samples)]


def elsewhere(samples: Sequence[Sample]) -> list[Sample]:
    text = "I am not able to say anything there, sorry, whatever you want to ask of me today."
    return [replace(each, response=text, id=f"else{at}") for at, each in enumerate(samples)]


def shown(watched: Watch) -> dict[str, str]:
    collected = Collected()
    watched.show(collected, "prod", "chat-0")
    return dict(collected.readings().lines)


def test_nothing_pages_while_the_model_is_well() -> None:
    assert not any(alarm.pages for alarm in raised(feed(watch(), traffic(600, 1))).values())


def test_other_answers_to_like_questions_alarm_the_response_and_say_since_when_and_which() -> None:
    alarm = after_usual(elsewhere(traffic(60, 2)))["response"]
    assert alarm.pages
    assert USUAL <= alarm.sample < USUAL + 20
    assert abs(alarm.since - USUAL) <= 4
    assert alarm.side == "response"
    assert "else0" in alarm.moved
    assert len(alarm.moved) <= 5


def test_other_questions_alone_inform_and_page_nobody() -> None:
    alarms = after_usual([each for each in traffic(500, 2) if "weather" in each.prompt])
    assert set(alarms) == {"prompt"}
    assert not alarms["prompt"].pages
    assert alarms["prompt"].side == "prompt"
    assert abs(alarms["prompt"].since - USUAL) <= 10


def test_a_check_that_fails_more_often_is_named_with_its_samples() -> None:
    alarm = after_usual(cut(traffic(100, 2)))["check"]
    assert alarm.checks == ("truncated",)
    assert USUAL - 2 <= alarm.since <= USUAL + 2
    assert alarm.sample < USUAL + 40
    assert set(alarm.moved) <= {f"r{at}" for at in range(0, 100, 2)}
    assert alarm.segment == ""


def test_a_check_alarm_names_the_sample_at_which_the_fault_began() -> None:
    alarm = after_usual(cut(traffic(40, 2), every=1))["check"]
    assert (alarm.checks, alarm.since) == (("truncated",), USUAL)
    good, bad = (replace_all(traffic(80, seed), name) for seed, name in ((1, "a"), (2, "b")))
    bad = [*bad[:50], *cut(bad[50:], every=1)]
    alarm = raised(feed(watch(), [each for pair in zip(good, bad, strict=True) for each in pair]))["check"]
    assert (alarm.replica, alarm.since, alarm.since_time) == ("b", 101, bad[50].time)


def test_a_prompt_alarm_names_no_check_for_they_are_of_answers() -> None:
    alarms = after_usual(cut([each for each in traffic(500, 2) if "weather" in each.prompt], every=1))
    assert alarms["check"].sample < alarms["prompt"].sample
    assert (alarms["check"].checks[0], alarms["prompt"].checks) == ("truncated", ())


def test_answers_that_are_empty_alarm_though_no_baseline_has_any() -> None:
    given = [replace(each, response=" ") if at % 4 == 0 else each for at, each in enumerate(traffic(200, 2))]
    watched = watch()
    assert raised(feed(watched, given))["check"].checks == ("empty",)
    assert watched.samples == {"watched": 150, "empty": 50}


def test_a_segment_in_which_alone_something_fails_is_named() -> None:
    given = traffic(600, 2)
    cuts = [
        replace(each, finish_reason="length") if each.team == "acme" and at % 2 else each
        for at, each in enumerate(given)
    ]
    alarm = after_usual(cuts)["check"]
    assert (alarm.segment, alarm.checks) == ("tenant=acme", ("truncated",))


def test_a_segment_with_too_few_samples_in_the_baseline_has_no_limits_and_the_log_says_so() -> None:
    assert sorted(baseline().manifest.segments) == ["endpoint=chat", "tenant=acme"]
    with capture_logs() as logs:
        Watch(model(), SEGMENTS)
    assert [(line["event"], line["without"]) for line in logs] == [("drift.segments", "language=fi")]


def test_replicas_are_apart_and_the_alarm_names_the_bad_one() -> None:
    good, bad = (replace_all(samples, name) for samples, name in ((traffic(80, 1), "a"), (cut(traffic(80, 2)), "b")))
    watched = watch()
    events = feed(watched, [each for pair in zip(good, bad, strict=True) for each in pair])
    assert {alarm.replica for alarm in raised(events).values() if alarm.pages} == {"b"}
    assert (
        'instance_id="b",namespace="prod",pod="chat-0",channel="check"} 1.0' in shown(watched)["palegreen_drift_alarm"]
    )


def replace_all(samples: Sequence[Sample], replica: str) -> list[Sample]:
    return [replace(each, replica=replica) for each in samples]


def full() -> Watch:
    """A watch of as many replicas as there may be, one sample each."""
    watched = watch()
    for number in range(REPLICAS):
        feed(watched, replace_all(traffic(1, 1), f"replica-{number}"))
    return watched


def later(seconds: float) -> list[Sample]:
    """Of one more replica."""
    return [replace(each, time=each.time + seconds) for each in replace_all(traffic(2, 1), "new")]


def test_a_replica_too_many_takes_no_others_place_and_its_samples_are_counted() -> None:
    watched = full()
    with capture_logs() as logs:
        feed(watched, later(SILENT - 60))
    assert list(watched.replicas) == [f"replica-{number}" for number in range(REPLICAS)]
    assert watched.samples == {"watched": REPLICAS, "too_many_replicas": 2}
    assert [line["event"] for line in logs] == ["drift.too_many_replicas"]
    series = 'instance_id="_other_",namespace="prod",pod="chat-0",result="too_many_replicas"} 2.0'
    assert series in shown(watched)["palegreen_drift_watched_samples_total"]


def test_a_replica_that_is_silent_for_an_hour_gives_way_and_its_samples_still_count() -> None:
    watched = full()
    feed(watched, later(SILENT))
    assert list(watched.replicas) == [*(f"replica-{number}" for number in range(1, REPLICAS)), "new"]
    assert watched.samples == {"watched": REPLICAS + 2}
    assert "replica-0" not in shown(watched)["palegreen_drift_watched_samples_total"]


def test_how_long_a_replica_was_silent_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state"
    keeper = Keeper(watched := watch(), path)
    feed(watched, [each for number in range(REPLICAS) for each in replace_all(traffic(1, 1), f"replica-{number}")])
    keeper.keep(now=True)
    again = kept(path, watch())
    feed(again, later(SILENT - 60))
    assert again.samples == {"too_many_replicas": 2}


def test_a_marker_that_moved_near_the_beginning_stands_in_the_alarm() -> None:
    asked: list[tuple[str, float]] = []

    def markers(replica: str, since: float) -> list[str]:
        asked.append((replica, since))
        return ["system_fingerprint fp_1 -> fp_2"]

    changed = replace_all(cut(traffic(100, 2)), "")
    alarm = after_usual(changed, markers=markers)["check"]
    assert alarm.markers == ("system_fingerprint fp_1 -> fp_2",)
    assert ("", alarm.since_time) in asked


def test_an_alarm_is_raised_once_shown_while_it_is_up_and_released_with_a_reset() -> None:
    watched = watch()
    feed(watched, cut(traffic(60, 2)))
    lines = shown(watched)
    assert 'channel="check"} 1.0' in lines["palegreen_drift_alarm"]
    assert 'channel="check"} 1.0' in lines["palegreen_drift_alarms_total"]
    assert 'channel="check"} 1700000' in lines["palegreen_drift_alarm_since_timestamp_seconds"]
    with capture_logs() as logs:
        events = feed(watched, traffic(900, 3))
    assert [event.turn for event in events if event.alarm.channel == "check"] == [Turn.RELEASED]
    assert {"released"} == {line["reason"] for line in logs if line["event"] == "drift.reset"}
    lines = shown(watched)
    assert 'channel="check"' not in lines.get("palegreen_drift_alarm_since_timestamp_seconds", "")
    assert 'reason="released"' in lines["palegreen_drift_resets_total"]


def test_what_is_no_fair_share_or_has_no_sound_embedding_is_counted_and_left_out() -> None:
    samples = traffic(6, 2)
    samples[0] = replace(samples[0], sampled="kept")
    samples[1] = replace(samples[1], error="boom")
    samples[2] = replace(samples[2], response="", tool_calls=[{"name": "f", "arguments": "{}"}])
    batch, vectors = scored(samples)
    vectors[3] = vectors[3] | {"prompt": np.full(24, np.nan, np.float32)}
    vectors[4] = {}
    watched = watch()
    with capture_logs() as logs:
        assert watched.observe(batch, vectors) == []
    assert watched.samples == {"kept": 1, "failed": 1, "tools": 1, "unfit": 2, "watched": 1}
    assert [line["event"] for line in logs] == ["drift.unfit"]


def test_a_prompt_unlike_all_of_the_baseline_is_seen_by_the_prompt_channel_alone() -> None:
    batch, vectors = scored(traffic(1, 2))
    vectors[0]["prompt"] = -vectors[0]["prompt"]
    watched = watch()
    watched.observe(batch, vectors)
    ratios = watched.replicas[""].ratios
    assert watched.samples == {"outside": 1}
    assert (ratios["response"], ratios["check"]) == (0.0, 0.0)
    assert ratios["prompt"] != 0.0


def kept(path: Path, watched: Watch) -> Watch:
    Keeper(watched, path)
    return watched


def test_the_state_survives_a_restart_as_if_there_had_been_none(tmp_path: Path) -> None:
    path, through = tmp_path / "state", watch()
    keeper = Keeper(first := watch(), path)
    for each in (through, first):
        feed(each, [*traffic(60, 1), *cut(traffic(50, 2))])
    keeper.keep(now=True)
    second = kept(path, watch())
    assert second.seen == 110
    assert second.replicas[""].alarms == through.replicas[""].alarms != {}
    assert feed(second, traffic(900, 3)) == feed(through, traffic(900, 3))
    assert second.replicas[""].ratios == through.replicas[""].ratios
    with zipfile.ZipFile(path) as archive:
        assert b"pickle" not in b"".join(archive.read(name) for name in archive.namelist())


def test_the_state_of_another_baseline_is_refused_in_one_line_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "state"
    keeper = Keeper(first := watch(), path)
    feed(first, traffic(40, 1))
    keeper.keep(now=True)
    other = Watch(Model(model().manifest.model_copy(update={"id": "b2"}), baseline().arrays), SEGMENTS[:2])
    with capture_logs() as logs:
        kept(path, other)
    assert [line["event"] for line in logs] == ["drift.state_refused", "drift.reset"]
    assert logs[0]["cause"] == "it is of the baseline b1, not b2"
    assert other.seen == 0
    assert 'reason="baseline"} 1.0' in shown(other)["palegreen_drift_resets_total"]
    with capture_logs() as logs:
        kept(path, Watch(model()))
    assert "segments" in logs[0]["cause"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a state at all"])
def test_a_damaged_state_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with capture_logs() as logs:
        watched = kept(path, watch())
    assert [line["event"] for line in logs] == ["drift.state_refused"]
    assert watched.seen == 0


def test_a_truncated_state_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state"
    keeper = Keeper(first := watch(), path)
    feed(first, traffic(40, 1))
    keeper.keep(now=True)
    path.write_bytes(path.read_bytes()[:-300])
    with capture_logs() as logs:
        assert kept(path, watch()).seen == 0
    assert [line["event"] for line in logs] == ["drift.state_refused"]


def test_a_state_that_cannot_be_written_is_said_once_and_costs_nothing_else(tmp_path: Path) -> None:
    keeper = Keeper(watched := watch(), tmp_path / "nowhere" / "state")
    with capture_logs() as logs:
        for seed in (1, 2):
            feed(watched, traffic(3, seed))
            keeper.keep(now=True)
    assert [line["event"] for line in logs] == ["drift.state_not_written"]


def test_a_replica_takes_64_kib_at_most_with_all_segments_there_can_be() -> None:
    of = model().manifest
    segments = {f"tenant=t{number}": of.normal for number in range(16)}
    large = Model(of.model_copy(update={"segments": segments}), baseline().arrays)
    watched = Watch(large, [("tenant", f"t{number}") for number in range(16)])
    feed(watched, [replace(each, team=f"t{at % 16}", id="x" * 60) for at, each in enumerate(traffic(450, 1))])
    state = watched.replicas[""].state()
    assert sum(array.nbytes for part in state.values() for array in part.values()) <= 64 << 10


def test_evidence_is_that_of_the_detectors_one_by_one() -> None:
    of = model().manifest.model_copy(update={"segments": {}})
    rows = Rows(of, model().features.clusters, 4000.0)
    each = {
        (row.check, row.stream): EDetector(
            (of.normal.limit if row.stream == rows.failures.get(row.check) else of.normal.loss_limit)[row.check], 4000.0
        )
        for row in rows.rows
    }
    draw, evidence = np.random.default_rng(0), Evidence(rows)
    for number in range(300):
        failed, score = draw.random() < 0.03, 0.6 + 0.4 * float(draw.random())
        values = rows.values({"truncated": Outcome(not failed), "length": Outcome(True, score)}, {"energy": 0.0})
        cluster = int(draw.integers(rows.clusters))
        ratio, _ = evidence.update(values, cluster, (), number)
        for (_, stream), detector in each.items():
            if not np.isnan(values[stream]):
                detector.update(float(values[stream]), cluster)
        assert ratio == pytest.approx(combined(each.values(), len(each), 4000.0), rel=1e-3)


@given(st.integers(12, 180), st.integers(0, 5))
def test_a_change_is_located_near_its_beginning(length: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(240, 64))
    rows[-length:, :16] += 1.2
    assert abs(located(rows).at - (240 - length)) <= 6


@given(st.integers(1, 130), st.integers(0, 3))
def test_vectors_in_the_ring_are_what_they_were_to_a_rounding(dimensions: int, seed: int) -> None:
    rows = np.clip(np.random.default_rng(seed).normal(size=(5, dimensions)) * 3, -5, 5)
    assert np.abs(unpacked(packed(rows), dimensions) - rows).max() <= 0.36
    assert np.isnan(unpacked(np.zeros_like(packed(rows)), dimensions)).all()
