"""Prometheus with the generated rules and Alertmanager with the generated routes, on this machine, for the demo."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from palegreen.alerts.build import build
from palegreen.alerts.config import OWNERS, AlertsConfig
from palegreen.demo import tools
from palegreen.demo.started import Started, answers

_PROMETHEUS_PORT, _ALERTMANAGER_PORT = 9090, 9093  # if they are free
_RESEND = "15s"  # what fired before Alertmanager was found is told again within this, and not within a minute
_TOLD = ("critical", "warning")


class Watching(NamedTuple):
    """URLs of the two."""

    prometheus: str
    alertmanager: str


def missing(progress: Callable[[str], None]) -> str:
    """Why Prometheus and Alertmanager cannot be had here, or an empty string; they are fetched if need be."""
    found = [tools.find(name, progress=progress) for name in ("prometheus", "alertmanager")]
    return "; ".join(f"{tool.name}: {tool.reason}" for tool in found if tool.path is None)


def configuration(pager: str) -> AlertsConfig:
    """The demo's configuration of rules and routes: all owners' pages and tickets go to the webhook at `pager`."""
    given = yaml.safe_load((files("palegreen.demo") / "alerts.yaml").read_text(encoding="utf-8"))
    told = {severity: [{"webhook": {"url": f"{pager}/{severity}"}}] for severity in _TOLD}
    return AlertsConfig.model_validate({**given, "receivers": dict.fromkeys(OWNERS, told)})


def scraping(targets: Sequence[str], alertmanager: str) -> dict[str, Any]:
    """Prometheus' configuration: daemons at HOST:PORT each second, with the node that they run on."""
    static = [{"targets": list(targets), "labels": {"node": socket.gethostname()}}]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{"job_name": "palegreen", "honor_labels": True, "static_configs": static}],
    }


def watch(started: Started, targets: Sequence[str], pager: str) -> Watching:
    """Start both, with data in the demo's folder. Raises DemoError."""
    config = configuration(pager)
    folder = started.folder / "watching"
    folder.mkdir()
    prometheus, alertmanager = (f"127.0.0.1:{started.port(port)}" for port in (_PROMETHEUS_PORT, _ALERTMANAGER_PORT))
    scraped = yaml.safe_dump(scraping(targets, alertmanager), sort_keys=False)
    for name, content in {**build(config), "prometheus.yaml": scraped.encode()}.items():
        (folder / name).write_bytes(content)
    started.program(
        "alertmanager",
        [str(tools.find("alertmanager").path), f"--config.file={folder / 'alertmanager.yaml'}",
         f"--storage.path={folder / 'alertmanager'}", f"--web.listen-address={alertmanager}",
         "--cluster.listen-address=", "--log.level=warn"],
        lambda: answers(f"http://{alertmanager}/-/ready"),
    )  # fmt: skip
    started.program(
        "prometheus",
        [str(tools.find("prometheus").path), f"--config.file={folder / 'prometheus.yaml'}",
         f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={prometheus}",
         f"--rules.alert.resend-delay={_RESEND}", "--log.level=warn"],
        lambda: answers(f"http://{prometheus}/-/ready"),
    )  # fmt: skip
    return Watching(f"http://{prometheus}", f"http://{alertmanager}")
