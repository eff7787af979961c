"""Fifteen incidents: the rules see each, and a real Prometheus and Alertmanager send one message to the right owner."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.alertmanager import Alertmanager, Pages, webhooks
from support.incidents import LIVE, MINUTES, Incident, incidents, page
from support.prometheus import Prometheus, static
from support.ruletests import run
from support.tools import program
from support.waiting import until

from palegreen.alerts.build import build
from palegreen.alerts.config import AlertsConfig
from palegreen.alerts.routes import TEMPLATE

INCIDENTS = incidents()
SCALE = 60


def test_there_are_fifteen_incidents_or_more() -> None:
    assert len(INCIDENTS) >= 15


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_the_rules_find_the_cause_and_not_before_the_fault(incident: Incident, tmp_path: Path) -> None:
    wanted = {key: value for key, value in incident.page.items() if key != "model_size"}
    labels = "{" + ",".join(f'{key}="{value}"' for key, value in wanted.items()) + "}"
    which = f'alertstate="firing",cause="{wanted["cause"]}",severity="{wanted["severity"]}"'
    expression = f"count by ({', '.join(wanted)}) (ALERTS{{{which}}})"
    test = {
        "name": incident.name,
        "interval": "1m",
        "input_series": incident.inputs(),
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{MINUTES - 1}m", "exp_samples": [{"labels": labels, "value": 1}]},
            {"expr": 'ALERTS{alertstate="firing",severity=~"critical|warning"}', "eval_time": "39m", "exp_samples": []},
        ],
    }
    assert run([test], tmp_path) == ""


class _Shown:
    """A target that shows the incidents, a minute each second, from the minute `LIVE` on."""

    def __init__(self, shown: list[Incident]) -> None:
        outer = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = ("\n".join(page(shown, outer.minute)) + "\n").encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.began = time.time()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def minute(self) -> int:
        return LIVE + int(time.time() - self.began)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """What was sent in 85 seconds that stand for 85 minutes, with 70 of history before them."""
    folder = tmp_path_factory.mktemp("incidents")
    with Pages() as pages:
        alerts = AlertsConfig.model_validate({"time_scale": SCALE, "receivers": webhooks(pages, ["platform", "model"])})
        files = build(alerts)
        with Alertmanager(folder, files["alertmanager.yaml"].decode(), files[TEMPLATE].decode()) as manager:
            _backfill(folder, time.time())
            shown = _Shown(INCIDENTS)
            (folder / "rules.yaml").write_bytes(files["rules.yaml"])
            config = {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yaml"],
                "scrape_configs": [static("incidents", shown.address)],
                "alerting": {
                    "alertmanagers": [{"static_configs": [{"targets": [manager.url.removeprefix("http://")]}]}]
                },
            }
            with Prometheus(folder, config, "--query.lookback-delta=5s"):
                until(lambda: shown.minute >= MINUTES - 5, 120)
            shown.server.shutdown()
            shown.server.server_close()
        yield pages


def _backfill(folder: Path, now: float) -> None:
    history = folder / "history.txt"
    with history.open("w", encoding="utf-8") as file:
        for incident in INCIDENTS:
            for name, values in incident.series.items():
                for minute, value in enumerate(values[:LIVE]):
                    if value is not None:
                        file.write(f"{name} {value!r} {now - LIVE + minute:.3f}\n")
        file.write("# EOF\n")
    command = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(history), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True)


def _messages(pages: Pages, incident: Incident) -> dict[tuple[str, str], list[set[str]]]:
    """Causes of each message, by receiver and group: a group is one incident to whoever gets it."""
    found: dict[tuple[str, str], list[set[str]]] = {}
    for owner in ("platform", "model"):
        for severity in ("critical", "warning"):
            for body in pages.to(f"{owner}-{severity}"):
                mine = [alert["labels"]["cause"] for alert in body["alerts"] if incident.mine(alert["labels"])]
                if mine and body["status"] == "firing":
                    found.setdefault((f"{owner}-{severity}", body["groupKey"]), []).append(set(mine))
    return found


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_one_incident_is_one_message_to_its_owner_whose_first_words_name_the_cause(
    told: Pages, incident: Incident
) -> None:
    messages = _messages(told, incident)
    receiver = f"{incident.page['owner']}-{incident.page['severity']}"
    meant = [key for key, causes in messages.items() if incident.page["cause"] in causes[0]]
    assert [key[0] for key in meant] == [receiver], messages
    pages = [key for key in messages if key[0].endswith("-critical")]
    assert len(pages) == (incident.page["severity"] == "critical"), messages
    beside = set().union(*(causes for key, told in messages.items() if key not in pages for causes in told))
    assert beside - {incident.page["cause"]} <= set(incident.tickets), messages
