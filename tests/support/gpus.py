"""A node with simulated GPUs: the real daemon and the real NVML binding over the simulated driver."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from palegreen.demo.driver.build import build
from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE, load
from support.daemon import Daemon, run


class Machine:
    """A driver library and the scenario it plays; `play` changes the scenario while a daemon runs."""

    def __init__(self, folder: Path, library: Path, scenario: dict[str, Any]) -> None:
        self.library = library
        self._file = folder / "scenario"
        self.play(scenario)

    def play(self, scenario: dict[str, Any]) -> None:
        """From now on the driver behaves like this."""
        load(scenario).write(self._file)

    def daemon(self, *arguments: str) -> Daemon:
        """The daemon on this machine."""
        return Daemon("--nvml", "--nvml-library", str(self.library), *arguments, env=self.environment)

    def once(self, *arguments: str) -> str:
        """One exposition."""
        done = run("node", "--once", "--nvml-library", str(self.library), *arguments, env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {ENVIRONMENT_VARIABLE: str(self._file)}


def library(folder: Path, without: Collection[str] = ()) -> Path:
    """The simulated driver, compiled once for all tests of a run."""
    return build(folder / ("old" if without else "new"), without=without)
