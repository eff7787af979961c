"""Messages as a real Alertmanager writes them with the shipped template, to Slack, PagerDuty, e-mail and a webhook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.alertmanager import Alertmanager, Pages
from support.mail import MailServer, part
from support.routing import alert, model, node, replica
from support.waiting import until

from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.routes import render_alertmanager, template

# Alertmanager waits for others in the group of an alert that has not begun, however slow the machine is; what is over
# must be so on any clock.
_BEGINS, _ENDS = "2199-03-02T14:03:00Z", "2199-03-02T15:03:00Z"
_BEGAN, _ENDED = "2024-03-02T14:03:00Z", "2024-03-02T14:41:00Z"

Alert = dict[str, Any]


def _said(cause: str, summary: str, description: str, where: dict[str, str], **labels: str) -> Alert:
    made = alert(cause, where, **labels)
    name = made["labels"]["alertname"]
    annotations = {
        "summary": summary,
        "description": description,
        "runbook_url": AlertsConfig().runbook(name),
        "dashboard_url": "https://grafana.example/d/palegreen-model?var-model=llama-3&var-instance_id=prod%2Fllm-1",
    }
    return made | {"annotations": annotations, "startsAt": _BEGINS, "endsAt": _ENDS}


def _over(made: Alert) -> Alert:
    return made | {"startsAt": _BEGAN, "endsAt": _ENDED}


DRIFT = _said(
    "response_drift",
    "llama-3 (chat) on prod/llm-1: answers drift from the baseline",
    "The statistic of answers is 3.1 times its threshold, that of prompts 0.4 times. Prompts & tools are as before, "
    "answers of <100 characters are new.\n"
    "Next: compare with the time of the last change; palegreen report shows what changed.\n"
    "Deployed 7 minutes before: prod/llm, revision 5d4f.",
    replica(1),
    team="search",
)
WEDGED = [
    _said(
        "wedged",
        f"llama-3 (chat) on prod/llm-{number}: the engine is wedged",
        f"{number + 4} requests run and no token came for 2 minutes, though it is healthy.\nNext: restart the replica.",
        replica(number),
    )
    for number in range(7)
]
BURN = _said(
    "latency_objective",
    "llama-3 (chat): too many requests are slow",
    "21% of requests in the last hour were slower than 2 s; 1% may be.",
    model(),
    owner="platform",
    severity="critical",
)
GPU = _said(
    "gpu_lost",
    "gpu-7, GPU-4c1f: the GPU fell off the bus",
    "XID: 79, of GPU-4c1f.\nNext: drain the node, then reset or replace the GPU.",
    node("gpu-7", uuid="GPU-4c1f"),
)
BARE = alert("", node("x"), annotations={"info": "of somebody else"}, scope="", node="", verdict="", owner="")
FOREIGN = BARE | {
    "labels": {"alertname": "HostDown", "severity": "critical", "namespace": "prod"},
    "startsAt": _BEGINS,
    "endsAt": _ENDS,
}
SCENARIOS: dict[str, tuple[list[Alert], ...]] = {
    # what is posted, and what is once that was told
    "one": ([DRIFT],),
    "over": ([DRIFT], [_over(DRIFT)]),
    "many": ([*WEDGED, BURN],),
    "some-over": (WEDGED[:3], [_over(WEDGED[0]), *WEDGED[1:3]]),
    "node": ([GPU],),
    "foreign": ([FOREIGN],),
}


@dataclass
class Told:
    """Everybody who is told."""

    pages: Pages
    mail: MailServer
    alertmanager: Alertmanager

    def messages(self, number: int) -> tuple[Any, Any, Any, Any]:
        """The message of that number: Slack's, PagerDuty's, the mail, the webhook's."""
        until(lambda: all(len(way) > number for way in self._ways()), 30)
        ways = self._ways()
        return ways[0][number], ways[1][number], ways[2][number], ways[3][number]

    def _ways(self) -> list[list[Any]]:
        to = self.pages.to
        return [to("slack"), to("pagerduty"), list(self.mail.mails), to("webhook")]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with Pages() as pages, MailServer() as mail:
        (tmp_path / "key").write_text("key-of-the-platform", encoding="utf-8")
        (tmp_path / "url").write_text(pages.url("slack"), encoding="utf-8")
        channels = [
            {"pagerduty": {"routing_key_file": str(tmp_path / "key")}},
            {"slack": {"api_url_file": str(tmp_path / "url"), "channel": "#llm"}},
            {"email": {"to": "oncall@a.example", "from": "palegreen@a.example", "smarthost": mail.address}},
            {"webhook": {"url": pages.url("webhook")}},
        ]
        config = AlertsConfig(
            time_scale=300, receivers={"platform": {"critical": channels, "warning": []}}, watchdog={}
        )
        written = yaml.safe_load(render_alertmanager(config, ()))
        # nothing but where PagerDuty is, and that the mail server here has no TLS
        written["global"] = {"pagerduty_url": pages.url("pagerduty"), "smtp_require_tls": False}
        with Alertmanager(tmp_path, yaml.dump(written), template()) as running:
            yield Told(pages, mail, running)


def _shown(slack: Any, pagerduty: Any, mail: Any) -> str:
    (attachment,) = slack["attachments"]
    payload = pagerduty["payload"]
    details = payload["custom_details"]
    return "\n".join(
        [
            "==== Slack",
            *(f"{name}: {attachment.get(name, '')}" for name in ("color", "fallback", "title", "title_link")),
            attachment["text"],
            "==== PagerDuty",
            f"event: {pagerduty['event_action']}, severity: {payload['severity']}",
            *(f"{name}: {payload.get(name, '')}" for name in ("summary", "component", "group", "class")),
            f"client: {pagerduty.get('client')} {pagerduty.get('client_url')}",
            f"links: {pagerduty.get('links')}",
            *(
                f"{name}:\n{value or 0 if name.startswith('num') else value or ''}"
                for name, value in sorted(details.items())
            ),
            "==== E-mail",
            f"Subject: {mail['Subject']}",
            part(mail, "plain"),
            "====",
            part(mail, "html"),
        ]
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_person_can_read_what_is_sent(name: str, told: Told, golden: Callable[[str, str], None]) -> None:
    *before, last = SCENARIOS[name]
    for number, alerts in enumerate(before):
        told.alertmanager.post(alerts)
        told.messages(number)
    told.alertmanager.post(last)
    slack, pagerduty, mail, webhook = told.messages(len(before))
    golden(f"messages/{name}.txt", _shown(slack, pagerduty, mail))
    assert slack["channel"] == "#llm"
    assert pagerduty["routing_key"] == "key-of-the-platform"
    assert {one["labels"]["alertname"] for one in webhook["alerts"]} == {one["labels"]["alertname"] for one in last}
    assert not [line for line in told.alertmanager.log if "level=ERROR" in line or "level=error" in line]
