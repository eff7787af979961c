"""The evaluator beside an engine of the demo."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from palegreen.demo.quality import Quality
from palegreen.demo.started import Started, answers

ENDPOINT = "chat"
"""The service that users of the demo call."""
_PORT = 9451  # of the first evaluator's metrics, if it is free


class Evaluator:
    """One that runs: `proxy` is the URL in front of the engine, `quality` reads its findings at `address`."""

    def __init__(
        self, started: Started, number: int, engine: str, options: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        """Start it with these options and settings of its file. Raises DemoError."""
        name = f"evaluate-{number}"
        proxy, self.address = f"127.0.0.1:{started.port(0)}", f"127.0.0.1:{started.port(_PORT + number - 1)}"
        self.proxy, self.store = f"http://{proxy}", started.folder / f"samples-{number}.db"
        self._config, self._settings, self._begun = started.folder / f"{name}.yaml", settings, 0
        self._configure()
        arguments = ["--upstream", engine, "--proxy-address", proxy, "--listen-address", self.address]
        arguments += ["--endpoint", ENDPOINT, "--model", _model(engine), "--store", str(self.store)]
        arguments += ["--log-format", "json", "--config", str(self._config), *options]
        self._program = started.palegreen(
            name, ["evaluate", *arguments], lambda: answers(f"http://{self.address}/readyz")
        )
        self.quality = Quality(f"http://{self.address}/metrics", self.store, started.log(name))

    def kill(self) -> None:
        """End it at once, as a machine that runs out of memory does."""
        self._program.kill()

    def again(self) -> None:
        """Start it after that, as it was. Raises DemoError."""
        self._program.again()

    def forget(self) -> None:
        """Let its detectors begin anew, with another file of what they saw: else an alarm is up for 50 answers more."""
        self._begun += 1
        self._configure()
        self._program.signal(signal.SIGHUP)

    def _configure(self) -> None:
        state = {"drift": {"state": f"{self.store}.drift-{self._begun}"}}
        self._config.write_text(yaml.safe_dump({**self._settings, **state}), encoding="utf-8")


def _model(engine: str) -> str:
    """The first model that an engine lists, for samples that name none, or an empty string."""
    try:
        with urllib.request.urlopen(f"{engine.rstrip('/').removesuffix('/v1')}/v1/models", timeout=10) as response:
            return str(json.load(response)["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
