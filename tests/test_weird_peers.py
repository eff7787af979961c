"""Replicas that differ, from what evaluators count to the alert: the rules that are shipped, in Prometheus's engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.peers import Replica, recorded
from support.rules import Result, by, evaluate

from palegreen.evaluators.replicas.projection import DIMENSIONS

RULES = Path(__file__).parent.parent / "alerts" / "generated" / "rules.yaml"
SCRAPES = 126  # a minute apart: an hour to fill the window, an hour to hold
_FIRING = 'ALERTS{{alertname="{}",alertstate="firing"}}'
ASKED = ("PalegreenPeerDisagreement", "PalegreenPeersDiffer", "PalegreenResponseDrift", "PalegreenFailingCheck")
# What the alert's text asks for.
TEXT = (
    'max by (model, pod) (palegreen:peer_distance{channel="response"})',
    (
        'max by (model, pod) (0 * palegreen:peer_distance{channel="response"}'
        " + on (model, endpoint, channel, basis) group_left () palegreen:peer_threshold)"
    ),
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    shift = np.zeros(DIMENSIONS)
    shift[: DIMENSIONS // 4] = 1.0
    fleet = [Replica("three", str(at), shift=shift * (at == 1)) for at in range(3)]
    fleet += [Replica("two", str(at), shift=shift * (at == 1)) for at in range(2)]
    fleet += [
        Replica("rollout", str(at), shift=shift * (at == 2), revision="new" if at == 2 else "old") for at in range(3)
    ]
    asked = [(_FIRING.format(name), f"{SCRAPES - 1}m") for name in ASKED] + [(text, f"{SCRAPES - 1}m") for text in TEXT]
    folder, text = tmp_path_factory.mktemp("peers"), RULES.read_text(encoding="utf-8")
    found = evaluate(folder, text, recorded(fleet, SCRAPES, 3), "1m", "1m", asked)
    return dict(zip((*ASKED, "distance", "limit"), found, strict=True))


def test_the_one_replica_of_three_that_differs_is_paged_for_and_no_other(seen: dict[str, Result]) -> None:
    assert set(by(seen["PalegreenPeerDisagreement"], "model", "pod", "namespace", "owner", "severity")) == {
        ("three", "three-1", "ns", "model", "critical")
    }


def test_of_two_replicas_none_is_named_but_the_model_and_its_namespace(seen: dict[str, Result]) -> None:
    assert set(by(seen["PalegreenPeersDiffer"], "model", "namespace", "endpoint", "instance_id")) == {
        ("two", "ns", "e", "")
    }


def test_a_revision_that_is_rolled_out_is_to_differ(seen: dict[str, Result]) -> None:
    for name in ("PalegreenPeerDisagreement", "PalegreenPeersDiffer"):
        assert "rollout" not in {dict(key)["model"] for key in seen[name]}


def test_nobody_is_paged_for_a_check_or_a_baseline_by_it(seen: dict[str, Result]) -> None:
    assert seen["PalegreenResponseDrift"] == seen["PalegreenFailingCheck"] == {}


def test_the_alert_can_say_how_far_it_is_and_how_far_is_usual(seen: dict[str, Result]) -> None:
    distance, limit = by(seen["distance"], "model", "pod"), by(seen["limit"], "model", "pod")
    assert distance["three", "three-1"] > limit["three", "three-1"] > 32
