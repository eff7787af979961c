"""A real Alertmanager on 127.0.0.1, what it posts to whom, and amtool."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Self

from support.jsonserver import JsonServer
from support.tools import program
from support.waiting import until

OLDEST = (0, 26)
"""Which routes need."""
EXTERNAL_URL = "http://alertmanager.example"


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run amtool to its end."""
    command = [program("amtool", OLDEST), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Pages:
    """A server that takes what Alertmanager posts, and keeps it by the last part of the path: the receiver."""

    def __init__(self) -> None:
        self._server = JsonServer(lambda asked: (202, b"ok"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def url(self, receiver: str) -> str:
        """Where a receiver's messages are to be posted."""
        return f"{self._server.url}/{receiver}"

    def to(self, receiver: str) -> list[Any]:
        """Bodies so far, in order."""
        return [asked.body for asked in list(self._server.asked) if asked.path == f"/{receiver}"]

    def told(self, receiver: str, status: str = "firing") -> list[set[str]]:
        """For each message of a webhook: the causes of the alerts in it that fire (or are `resolved`)."""
        return [
            {alert["labels"].get("cause", "") for alert in body["alerts"] if alert["status"] == status}
            for body in self.to(receiver)
        ]


class Alertmanager:
    """A process of its own, with a configuration and a template in `folder`; `log` is what it wrote."""

    def __init__(self, folder: Path, config: str, template: str) -> None:
        file = folder / "alertmanager.yaml"
        file.write_text(config, encoding="utf-8")
        (folder / "palegreen.tmpl").write_text(template, encoding="utf-8")
        self.log: list[str] = []
        self._process = subprocess.Popen(
            [
                program("alertmanager", OLDEST),
                f"--config.file={file}",
                f"--storage.path={folder / 'alertmanager'}",
                "--web.listen-address=127.0.0.1:0",
                f"--web.external-url={EXTERNAL_URL}",
                "--web.route-prefix=/",
                "--cluster.listen-address=",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reading = Thread(target=self._read, daemon=True)
        self._reading.start()
        try:
            until(lambda: self._address() or self._process.poll() is not None, 30)
            self.url = f"http://{self._address()}"
            assert self._address()
        except AssertionError:
            self.stop()
            raise AssertionError(f"it does not listen: {self.log}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._reading.join(5)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def post(self, alerts: Iterable[Mapping[str, Any]]) -> None:
        """Alerts as Prometheus sends them: labels, annotations, startsAt, endsAt."""
        self._ask("/api/v2/alerts", json.dumps(list(alerts)).encode())

    def alerts(self) -> list[dict[str, Any]]:
        """All that it knows, with their status."""
        found: list[dict[str, Any]] = self._ask("/api/v2/alerts")
        return found

    def silenced_by_others(self) -> set[str]:
        """Causes of the alerts that are inhibited."""
        return {alert["labels"]["cause"] for alert in self.alerts() if alert["status"]["inhibitedBy"]}

    def _address(self) -> str:
        lines = [re.search(r"Listening on.*address=(127\.0\.0\.1:\d+)", line) for line in list(self.log)]
        return next((found[1] for found in lines if found), "")

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.rstrip("\n"))


def webhooks(pages: Pages, audiences: Sequence[str]) -> dict[str, Any]:
    """`receivers` of a configuration in which each severity of each audience is posted to `AUDIENCE-SEVERITY`."""
    return {
        audience: {
            severity: [{"webhook": {"url": pages.url(f"{audience}-{severity}")}}]
            for severity in ("critical", "warning")
        }
        for audience in audiences
    }
