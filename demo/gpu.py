"""The GPU of the demo: the real driver where there is one, else the simulated one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from palegreen.demo.driver.build import BuildError, build
from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE, load

_CHANGES: Mapping[str, Mapping[str, Any]] = {"": {}, "lost": {"lost": True}, "calm": {"gpu_utilization": 45}}


@dataclass(frozen=True, slots=True)
class Driver:
    """How the node daemon is pointed at a driver: extra arguments, extra environment, and a line that says which."""

    arguments: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    scenario: Path | None = None
    """Of the simulated driver, which reads it again when it changes."""

    @property
    def simulated(self) -> bool:
        """Whether its GPU can be changed."""
        return self.scenario is not None

    def change(self, to: str) -> None:
        """Make the simulated GPU `lost`, `calm` (at 45%), or, with an empty string, as it was."""
        if self.scenario is not None:
            load(_scenario(_CHANGES[to])).write(self.scenario)


def find(folder: Path) -> Driver:
    """The driver to use; a simulated one is compiled into `folder`. Without a compiler there is none."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        return Driver(about="the real NVIDIA driver")
    try:
        library = build(folder)
    except BuildError as failure:
        return Driver(["--no-nvml"], about=f"none: there is no NVIDIA driver, and none could be simulated ({failure})")
    scenario = folder / "scenario"
    load(_scenario({})).write(scenario)
    return Driver(
        ["--nvml-library", str(library)],
        {ENVIRONMENT_VARIABLE: str(scenario)},
        'simulated, since this machine has no NVIDIA driver: palegreen_gpu_info{simulated="true"}',
        scenario,
    )


def _scenario(changes: Mapping[str, Any]) -> dict[str, Any]:
    demo: dict[str, Any] = yaml.safe_load(
        (resources.files("palegreen.demo.driver") / "demo.yaml").read_text(encoding="utf-8")
    )
    gpu = demo["gpus"][0]
    gpu["processes"][0]["pid"] = os.getpid()  # a process that there is, so that it has an owner
    gpu |= changes
    return demo
