"""What a real Alertmanager does with the generated routes: one incident is one page, to the right people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.alertmanager import Alertmanager, Pages, webhooks
from support.routing import CAUSES, alert, labels, model, node, replica
from support.waiting import until

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.routes import render_alertmanager, template

Alert = dict[str, Any]


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages() as server:
        yield server


@pytest.fixture
def alertmanager(tmp_path: Path, pages: Pages) -> Iterator[Alertmanager]:
    """Groups wait a second, and changes of them another."""
    config = AlertsConfig(
        time_scale=300,
        receivers=webhooks(pages, ["platform", "model", "search"]),
        watchdog={"webhook": {"url": pages.url("watchdog")}},
    )
    with Alertmanager(tmp_path, render_alertmanager(config, CAUSES), template()) as running:
        yield running


@pytest.fixture
def settled(alertmanager: Alertmanager, pages: Pages) -> Callable[[], None]:
    """Wait until what was posted before must have been told: an incident that is younger has been, and its end too."""
    numbers = count()

    def wait() -> None:
        for name in (f"barrier-{next(numbers)}", f"barrier-{next(numbers)}"):
            alertmanager.post([alert("wedged", node(name))])
            until(partial(_mentions, pages, name), 30)

    return wait


def _mentions(pages: Pages, name: str) -> bool:
    return name in str(pages.to("platform-critical"))


def _about(pages: Pages, receiver: str, messages: int = 0) -> list[list[str]]:
    """Causes in each message, of which there must be so many, without those that `settled` waits for."""

    def told() -> list[list[str]]:
        return [
            sorted(f"{alert['labels']['cause']} {alert['status']}" for alert in body["alerts"])
            for body in pages.to(receiver)
            if "barrier" not in str(body["groupLabels"])
        ]

    until(lambda: len(told()) >= messages, 30)
    return told()


def test_two_replicas_of_a_model_and_their_symptom_are_one_page(
    alertmanager: Alertmanager, pages: Pages, settled: Callable[[], None]
) -> None:
    alertmanager.post(
        [
            alert("wedged", replica(0)),
            alert("wedged", replica(1)),
            alert("latency_objective", model(), owner="platform", severity="critical"),
            alert("wedged", replica(2, model="other")),
        ]
    )
    settled()
    assert sorted(_about(pages, "platform-critical", 2)) == [
        ["latency_objective firing", "wedged firing", "wedged firing"],
        ["wedged firing"],
    ]


def test_alerts_of_a_node_are_one_page_whatever_their_verdict(
    alertmanager: Alertmanager, pages: Pages, settled: Callable[[], None]
) -> None:
    alertmanager.post(
        [
            alert("gpu_lost", node("gpu-7", uuid="GPU-a")),
            alert("throttled", node("gpu-7", uuid="GPU-b"), severity="critical"),
            alert("gpu_lost", node("gpu-8")),
        ]
    )
    settled()
    assert sorted(_about(pages, "platform-critical", 2)) == [
        ["gpu_lost firing"],
        ["gpu_lost firing", "throttled firing"],
    ]


def test_the_team_of_a_model_is_told_and_told_again_when_it_is_over(
    alertmanager: Alertmanager, pages: Pages, settled: Callable[[], None]
) -> None:
    alertmanager.post([alert("response_drift", replica(), team="search")])
    until(lambda: pages.to("search-critical"), 30)
    alertmanager.post([alert("response_drift", replica(), team="search", over=True)])
    until(lambda: len(pages.to("search-critical")) > 1, 30)
    settled()
    assert _about(pages, "search-critical", 2) == [["response_drift firing"], ["response_drift resolved"]]
    assert _about(pages, "model-critical") == []


SILENCED: dict[str, tuple[list[Alert], list[Alert]]] = {
    # what is told, and what is not while it is
    "a critical alert silences its own lesser form": (
        [alert("latency_objective", model(), severity="critical")],
        [alert("latency_objective", model(), severity="warning")],
    ),
    "a critical cause of the platform's silences what the model's owner would get for the replica": (
        [alert("wedged", replica())],
        [alert("response_drift", replica()), alert("failing_check", replica())],
    ),
    "a warning of the platform's silences the owner's warnings of the same verdict": (
        [alert("queue_backlog", replica())],
        [alert("slow_start", replica(), owner="model", severity="warning")],
    ),
    "a cause silences what it explains on the same replica": (
        [alert("kv_thrash", replica())],
        [alert("queue_backlog", replica()), alert("latency_objective", model(), owner="platform", severity="critical")],
    ),
    "a cause of the model's owner silences what it explains": (
        [alert("response_drift", replica())],
        [alert("failing_check", replica())],
    ),
    "a lost GPU silences what it explains of the replica that uses it": (
        [alert("gpu_lost", replica(0, scope="node", node="gpu-7", uuid="GPU-a"))],
        [alert("wedged", replica(0)), alert("gpu_slow", node("gpu-7", uuid="GPU-a"))],
    ),
    "a lost GPU that nobody is known to use silences what it explains on its node": (
        [alert("gpu_lost", node("gpu-7", uuid="GPU-a"))],
        [alert("wedged", replica(0, node="gpu-7")), alert("wedged", replica(1, node="gpu-7"))],
    ),
}
TOLD: dict[str, list[Alert]] = {
    "a warning silences no critical one that it explains": [
        alert("queue_backlog", replica()),
        alert("wedged", replica()),
    ],
    "a warning of the platform's silences no critical one of the owner's": [
        alert("tail_latency", replica()),
        alert("slow_start", replica(), owner="model", severity="critical"),
    ],
    "a warning of the platform's silences no other verdict": [
        alert("tail_latency", replica()),
        alert("failing_check", replica()),
    ],
    "a cause on one replica silences nothing on another": [
        alert("kv_thrash", replica(0)),
        alert("queue_backlog", replica(1)),
        alert("response_drift", replica(2)),
    ],
    "alerts that name no replica are not about the same one": [
        alert("kv_thrash", replica(instance_id="", pod="")),
        alert("queue_backlog", replica(instance_id="", pod="", model="other")),
        alert("response_drift", replica(instance_id="", pod="", model="another")),
    ],
    "alerts that name no node are not about the same one": [
        alert("gpu_lost", node("", uuid="")),
        alert("wedged", replica()),
        alert("gpu_slow", node("", uuid="GPU-b")),
    ],
    "a cause of one model silences no symptom of another": [
        alert("kv_thrash", replica()),
        alert("latency_objective", model(model="other"), owner="platform", severity="critical"),
    ],
    "a lost GPU silences nothing of another on the node": [
        alert("gpu_lost", replica(0, scope="node", node="gpu-7", uuid="GPU-a")),
        alert("wedged", replica(1, node="gpu-7", uuid="GPU-b")),
        alert("gpu_slow", node("gpu-7", uuid="GPU-b")),
    ],
    "alerts of somebody else are not ours to silence": [
        alert("", {}, alertname="HostDown", severity="critical", scope="", instance="a"),
        alert("", {}, alertname="HostDown", severity="warning", scope="", instance="b"),
    ],
    "the same replica in two clusters is two": [
        alert("kv_thrash", replica(cluster="east")),
        alert("queue_backlog", replica(cluster="west")),
    ],
}


def test_inhibition_is_as_the_rules_say(alertmanager: Alertmanager, pages: Pages, settled: Callable[[], None]) -> None:
    """All cases at once, each in a namespace and on nodes of its own."""

    def apart(alerts: list[Alert], number: int) -> list[Alert]:
        def own(of: dict[str, str]) -> dict[str, str]:
            where = {"namespace": f"n{number}"} | ({"node": f"{of['node']}-{number}"} if of.get("node") else {})
            return of | where

        return [{**alert, "labels": own(alert["labels"])} for alert in alerts]

    told, silenced = [], []
    for number, (loud, quiet) in enumerate(SILENCED.values()):
        told += apart(loud, number)
        silenced += apart(quiet, number)
    for number, loud in enumerate(TOLD.values(), len(SILENCED)):
        told += apart(loud, number)
    alertmanager.post(told)
    settled()  # groups wait a second here, which on a busy machine is less than it takes to see what inhibits
    alertmanager.post(silenced)
    settled()
    cases = [*SILENCED, *TOLD]
    state = {
        tuple(sorted(of["labels"].items())): bool(of["status"]["inhibitedBy"])
        for of in alertmanager.alerts()
        if "barrier" not in str(of["labels"])
    }

    def names(alerts: list[Alert], inhibited: bool) -> list[str]:
        wrong = [of["labels"] for of in alerts if state[tuple(sorted(of["labels"].items()))] is not inhibited]
        return [f"{cases[int(of['namespace'][1:])]}: {of['alertname']}" for of in wrong]

    assert (names(silenced, True), names(told, False)) == ([], [])

    def posted() -> set[tuple[tuple[str, str], ...]]:
        return {
            tuple(sorted(of["labels"].items()))
            for receiver in ("platform-critical", "platform-warning", "model-critical", "model-warning")
            for body in pages.to(receiver)
            for of in body["alerts"]
            if "barrier" not in str(of["labels"])
        }

    expected = {tuple(sorted(of["labels"].items())) for of in told}
    until(lambda: expected <= posted(), 30)
    assert posted() == expected


def test_the_watchdog_is_told_again_and_again_and_informs_nobody_else(
    alertmanager: Alertmanager, pages: Pages, settled: Callable[[], None]
) -> None:
    watchdog = {"alertname": "PalegreenWatchdog", "severity": "none", "owner": "platform", "cause": "watchdog"}
    alertmanager.post([{"labels": watchdog, "endsAt": alert("wedged", node())["endsAt"]}])
    until(lambda: len(pages.to("watchdog")) >= 3, 30)
    alertmanager.post([{"labels": watchdog, "endsAt": alert("wedged", node(), over=True)["endsAt"]}])
    settled()
    assert pages.told("watchdog", "resolved") == [set()] * len(pages.to("watchdog"))
    assert _about(pages, "platform-critical") == _about(pages, "platform-warning") == []


def test_informing_alerts_reach_nobody_who_did_not_ask(
    alertmanager: Alertmanager, pages: Pages, settled: Callable[[], None]
) -> None:
    alertmanager.post([alert("prompt_drift", replica())])
    settled()
    assert [of["receivers"] for of in alertmanager.alerts() if of["labels"] == labels("prompt_drift", replica())] == [
        [{"name": "nobody"}]
    ]
    assert not pages.to("model-critical") + pages.to("model-warning") + pages.to("platform-warning")
