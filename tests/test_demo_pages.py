"""What the demo's pager makes of Alertmanager's messages, and what the script makes of the pages."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from palegreen.catalogue.causes import causes
from palegreen.demo.faults import FAULTS
from palegreen.demo.outcome import Outcome, judged, table
from palegreen.demo.pager import Incident, Incidents, Pager
from palegreen.demo.script import Played, blamed, order

NUMBERS = {"vm:1": 1, "vm:2": 2, "vm:3": 3, "127.0.0.1:9452": 2}
RUNBOOK = "https://example.test/runbooks/X.md"


def alert(cause: str, instance_id: str = "vm:3", status: str = "firing", **labels: str) -> dict[str, Any]:
    declared = causes()[cause]
    given = {"cause": cause, "owner": declared.owner, "severity": declared.severity, "verdict": declared.verdict}
    return {
        "status": status,
        "labels": given | {"instance_id": instance_id} | labels,
        "annotations": {
            "summary": f"chat on {instance_id}: {declared.summary}",
            "description": "12% fail. Next: look.",
            "runbook_url": RUNBOOK,
        },
    }


def message(*alerts: dict[str, Any], receiver: str = "model-critical", key: str = "one") -> dict[str, Any]:
    return {"receiver": receiver, "groupKey": key, "status": "firing", "alerts": list(alerts)}


def told(*messages: dict[str, Any], at: float = 100.0) -> list[Incident]:
    incidents = Incidents(NUMBERS, clock=lambda: at)
    for each in messages:
        incidents.take(each)
    return incidents.told()


def judge(name: str, *messages: dict[str, Any], number: int = 3) -> Outcome:
    return judged(name, FAULTS[name], number, 70.0, told(*messages), 9, NUMBERS)


def test_a_page_reads_as_on_a_phone_and_so_do_its_update_and_its_end() -> None:
    now = 100.0
    incidents = Incidents(NUMBERS, clock=lambda: now)
    incidents.take(message(alert("response_drift")))
    assert incidents.news() == [
        "PAGE     to model: chat on vm:3: answers drift from the baseline [response_drift, replica 3]",
        "         12% fail. Next: look.",
        f"         {RUNBOOK}",
    ]
    incidents.take(message(alert("response_drift")))
    assert incidents.news() == [], "told again, and nothing is new"
    incidents.take(message(alert("response_drift"), alert("failing_canary")))
    (update,) = incidents.news()
    assert update.startswith("UPDATE   to model: chat on vm:3: fixed questions are answered otherwise than recorded")
    now = 160.0
    incidents.take(message(alert("response_drift", status="resolved"), alert("failing_canary", status="resolved")))
    assert incidents.news() == [
        "RESOLVED to model: chat on vm:3: answers drift from the baseline [response_drift, replica 3] (after 60 s)"
    ]
    (incident,) = incidents.told()
    assert (incident.opened, incident.closed, incident.messages) == (100.0, 160.0, 4)
    assert incident.of("cause") == ("response_drift", "failing_canary")
    incidents.take(message(alert("response_drift", status="resolved")))
    assert len(incidents.told()) == 1, "the end of what nobody was told of"
    incidents.take(message(alert("response_drift")))
    assert len(incidents.told()) == 2, "what comes back after its end is another page"


def test_a_ticket_is_called_so_and_many_alerts_of_a_message_are_summed_up() -> None:
    incidents = Incidents(clock=lambda: 0.0)
    incidents.take(message(*(alert("uneven_load", f"vm:{at}") for at in range(5)), receiver="platform-warning"))
    lines = incidents.news()
    assert lines[0].startswith("TICKET   to platform: chat on vm:0: one replica gets most of the load [uneven_load]")
    assert lines[2].startswith("         and chat on vm:2")
    assert lines[3] == "         and 2 more"


def test_the_pager_takes_what_is_posted_and_refuses_what_is_no_message() -> None:
    incidents = Incidents()

    def post(body: bytes) -> int:
        request = urllib.request.Request(f"{pager.url}/critical", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)

    with Pager(incidents) as pager:
        assert post(json.dumps(message(alert("engine_dead"))).encode()) == 200
        for wrong in (b"no JSON", b"{}", b"[]"):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                post(wrong)
    assert [incident.of("cause") for incident in incidents.told()] == [("engine_dead",)]


def test_one_page_to_the_right_owner_about_the_right_replica_is_right() -> None:
    outcome = judge("other-weights", message(alert("response_drift")))
    assert outcome == Outcome("other-weights", 30.0, 9, ("response_drift",), "model", "3", 1, 0)
    late = judge(
        "other-weights",
        message(alert("failing_canary")),
        message(alert("failing_canary"), alert("quality_objective", "")),
    )
    assert (late.problem, late.causes) == ("", ("failing_canary", "quality_objective"))
    gpu = judge("gpu-lost", message(alert("gpu_lost", "", node="vm"), receiver="platform-critical"))
    assert (gpu.problem, gpu.replica) == ("", "of the node")
    ticket = alert("daemon_down", "", instance="127.0.0.1:9452")
    evaluator = judge("evaluator-killed", message(ticket, receiver="platform-warning"), number=2)
    assert (evaluator.problem, evaluator.pages, evaluator.tickets) == ("", 0, 1)


@pytest.mark.parametrize(
    ("name", "messages", "problem"),
    [
        ("other-weights", [], "nobody was told"),
        ("other-weights", [message(alert("busy_restart"), receiver="platform-warning")], "nobody was told"),
        ("other-weights", [message(alert("response_drift", "vm:2"))], "it was replica 3"),
        ("other-weights", [message(alert("response_drift"), alert("response_drift", "vm:1"))], "it was replica 3"),
        ("queue", [message(alert("queue_calm")), message(alert("queue_calm"), key="two")], "told 2 times"),
        ("engine-killed", [message(alert("wedged_engine"))], "not a cause of it: wedged_engine"),
        ("other-weights", [message(alert("quality_objective", severity="critical"))], "nothing but a symptom"),
        ("engine-killed", [message(alert("engine_dead", owner="model"))], "not told to platform"),
        (
            "evaluator-killed",
            [message(alert("evaluator_silent")), message(alert("engine_dead"), key="two")],
            "a page of engine_dead",
        ),
    ],
)  # fmt: skip
def test_what_was_told_wrongly_is_said(name: str, messages: list[dict[str, Any]], problem: str) -> None:
    assert judge(name, *messages).problem == problem


def test_tickets_beside_a_page_are_shown_and_are_no_second_page() -> None:
    outcome = judge(
        "wrong-template",
        message(alert("response_drift")),
        message(alert("model_changed"), receiver="model-warning", key="two"),
    )
    assert (outcome.problem, outcome.pages, outcome.tickets, outcome.beside) == ("", 1, 1, ("model_changed",))


def test_the_table_begins_with_the_clean_run_and_says_what_is_wrong() -> None:
    right, wrong = judge("other-weights", message(alert("response_drift"))), judge("queue")
    lines = table([right, wrong], 120.0, [])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["fault", "told after", "samples", "cause named"]
    assert cells[2] == ["none, for 120 s", "", "", "", "", "", "0", "0", "ok"]
    assert cells[3] == ["other-weights", "30 s", "9", "response_drift", "model", "3", "1", "0", "ok"]
    assert (cells[4][0], cells[4][1], cells[4][-1]) == ("queue", "never", "nobody was told")
    assert len({len(line) for line in lines}) == 1, "aligned"
    told_of_nothing = table([], 60.0, told(message(alert("engine_dead"))))
    assert "engine_dead" in told_of_nothing[2]
    assert told_of_nothing[2].endswith("| nobody was to be told |")


def test_faults_of_a_verdict_come_on_replicas_of_their_own_and_never_two_on_one_in_succession() -> None:
    played = order([name for name, fault in FAULTS.items() if fault.expected], 3)
    by_verdict: dict[str, list[int]] = {}
    for name, replica in played:
        by_verdict.setdefault(FAULTS[name].expected.verdict, []).append(replica)  # type: ignore[union-attr]
    assert sorted(by_verdict["weird"]) == sorted(by_verdict["slow"]) == [0, 1, 2]
    assert all(one != next_one for (_, one), (_, next_one) in itertools.pairwise(played[1:])), "the GPU is the node's"
    assert order(["queue", "gpu-lost"], 1) == [("queue", 0), ("gpu-lost", 0)]


def test_an_incident_is_blamed_on_the_last_fault_that_fits_else_on_its_replicas() -> None:
    names = ("lost-system-prompt", "evaluator-killed", "queue")
    played = [Played(name, FAULTS[name], at, at * 10.0, at * 10.0) for at, name in enumerate(names, 1)]

    def blame(each: dict[str, Any], at: float = 100.0) -> str:
        (incident,) = told(message(each), at=at)
        found = blamed(incident, played, NUMBERS)
        return found.name if found else "none"

    assert blame(alert("failing_check", "vm:1")) == "lost-system-prompt", "it was not over yet"
    assert blame(alert("daemon_down", "", instance="127.0.0.1:9452")) == "evaluator-killed"
    assert blame(alert("evaluator_process", "vm:1")) == "lost-system-prompt", "its scorer was started again"
    assert blame(alert("idle_gpu", "", node="vm")) == "queue"
    assert blame(alert("failing_check", "vm:1"), at=5.0) == "none"


def test_each_fault_expects_causes_that_there_are_with_their_owner_and_severity() -> None:
    known = causes()
    for name, fault in FAULTS.items():
        assert (fault.expected is None) == (name == "none")
        if fault.expected:
            for cause in fault.expected.causes:
                found = known[cause]
                assert (found.owner, found.severity, found.verdict) == (
                    fault.expected.owner, fault.expected.severity, fault.expected.verdict,
                ), f"{name}: {cause}"  # fmt: skip
