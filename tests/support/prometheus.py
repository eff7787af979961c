"""A real Prometheus on 127.0.0.1."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from support.tools import program
from support.waiting import until


class Prometheus:
    """A process of its own on entering, with its data and `prometheus.yml` in `folder`; ready, and ended on leaving.

    Args:
        config: as of prometheus.yml; relative names of files are looked for in `folder`.
        flags: more of the command line.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *flags: str) -> None:
        self._program = program("prometheus")
        self._folder, self._flags = folder, flags
        (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "--config.file=prometheus.yml",
                    "--storage.tsdb.path=data",
                    f"--web.listen-address={self._address}",
                    *self._flags,
                ],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        try:
            until(self._ready, 60)
        except AssertionError:
            self.__exit__()
            raise AssertionError(f"Prometheus is not ready: {self.log()}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def log(self) -> str:
        """What it wrote."""
        return (self._folder / "prometheus.log").read_text(encoding="utf-8")

    def api(self, path: str, **given: str) -> Any:
        """What its API answers. Raises AssertionError with its words where it refuses."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(given)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{given}: {refused.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series now."""
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Value of the only series now, None without one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def _ready(self) -> bool:
        assert self._process.poll() is None
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5):
                return True
        except OSError:
            return False


def static(name: str, target: str, **labels: str) -> dict[str, Any]:
    """A job of one target, whose own labels stay as they are."""
    return {"job_name": name, "honor_labels": True, "static_configs": [{"targets": [target], "labels": labels}]}
