"""Scenarios of the simulated driver: YAML for people, flat lines for the C side.

A scenario may be as short as `gpus: 8`. Every number of a GPU is a constant, a wave over time, or null, which
the driver answers with NOT_SUPPORTED. The library re-reads the compiled file when it changes, so writing
another scenario over it changes what the driver says while a program runs.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import yaml
from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator

from palegreen.demo.driver.gpu import ERRORS, Call, Error, Event, Gpu, MigDevice, Model, Process, Wave
from palegreen.demo.driver.mig import H100_PROFILES, Profile

ENVIRONMENT_VARIABLE: Final = "PALEGREEN_SIMULATED_DRIVER"
MAX_GPUS: Final = 32

_HANG: Final = -1
_EVERY_GPU: Final = -1
_NAMESPACE: Final = uuid.UUID("7d1a3f5e-0f3b-5c1e-9a55-70616c656772")


class ScenarioError(ValueError):
    """A scenario that cannot be used; the message is one line that names the file and the key."""


class Scenario(Model):
    """A machine: its driver, its GPUs, and what goes wrong."""

    start: float | None = None
    """Epoch seconds or a timestamp from which waves run and counters count; else when the library loads."""
    driver_version: str = "580.95.05"
    nvml_version: str = "13.580.95.05"
    cuda_version: int = 13000
    privileged: bool = False
    """The caller is root: calls that need it answer."""
    init: Error = 0
    """What nvmlInit returns."""
    gpus: list[Gpu] = Field(max_length=MAX_GPUS)
    """A list, or how many with the values of `each`."""
    events: list[Event] = Field(default_factory=list)
    hang: list[Call] = Field(default_factory=list)
    errors: dict[Call, Error] = Field(default_factory=dict)
    """On all GPUs, and for the calls that concern none."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        """Turn `gpus: 8` and `each:` into a list of GPUs, each with an identity of its own."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        each = data.pop("each", None) or {}
        gpus = data.get("gpus")
        if isinstance(gpus, int) and not isinstance(gpus, bool):
            gpus = [{}] * max(0, min(gpus, MAX_GPUS + 1))
        if isinstance(gpus, list) and isinstance(each, dict):
            data["gpus"] = [
                _identify({**each, **(gpu or {})}, n) if isinstance(gpu, dict | None) else gpu
                for n, gpu in enumerate(gpus)
            ]
        if data.get("start") is not None and not isinstance(data["start"], int | float):
            data["start"] = _Timestamp(at=data["start"]).at.timestamp()
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for n, gpu in enumerate(self.gpus):
            try:
                _placements(gpu)
            except ValueError as error:
                raise ValueError(f"gpus.{n}.mig: {error}") from None
        for earlier, later in itertools.pairwise(_numbers(self.events)):
            if later <= earlier:
                raise ValueError("events: ids must rise")
        for event in self.events:
            if event.gpu >= len(self.gpus):
                raise ValueError(f"events: no GPU {event.gpu}")
        return self

    def lines(self) -> Iterator[str]:
        """The flat form: a section a thing, in it one value a line."""
        yield from _section("system", self)
        for gpu in self.gpus:
            yield from _section("gpu", gpu)
            placed = _placements(gpu)
            for device, (profile, start) in zip(gpu.mig, placed, strict=True):
                yield from _section("mig", device)
                yield from _section("", profile)
                yield f"placement {start}"
            for profile in H100_PROFILES.values():
                yield from _section("profile", profile)
                yield f"remaining {profile.remaining(placed)}"
            for process in gpu.processes:
                yield from _section("process", process)
        for event, number in zip(self.events, _numbers(self.events), strict=True):
            yield from _section("event", event)
            yield f"id {number}"
        for n, gpu in enumerate(self.gpus):
            yield from _rules(n, ["*"] if gpu.hang is True else gpu.hang or [], gpu.errors, gpu.lost)
        yield from _rules(_EVERY_GPU, self.hang, self.errors, lost=False)

    def write(self, path: Path | str) -> None:
        """Compile into the file that the library reads, at once: it never sees half of one."""
        path = Path(path)
        text = "\n".join(self.lines()) + "\n"
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)  # noqa: PTH105


class _Timestamp(Model):
    at: AwareDatetime


def load(source: Path | str | Mapping[str, Any]) -> Scenario:
    """Read a scenario from a YAML file or a mapping."""
    if isinstance(source, Mapping):
        where, data = "scenario", dict(source)
    else:
        where = str(source)
        try:
            data = yaml.safe_load(Path(source).read_text())
        except OSError as error:
            raise ScenarioError(f"{where}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ScenarioError(f"{where}: {' '.join(str(error).split())}") from error
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        more = f" (and {len(others)} more)" if others else ""
        raise ScenarioError(": ".join(part for part in (where, key, message) if part) + more) from error


@functools.cache
def vocabulary() -> tuple[list[str], list[str]]:
    """The names of all numbers and of all texts, from which the C side gets its tables."""
    signals, texts = {"remaining"}, set()
    for model in (Scenario, Gpu, MigDevice, Process, Profile, Event):
        for name, kind in typing.get_type_hints(model).items():
            if name in model.model_fields:
                kinds = set(typing.get_args(kind)) if isinstance(kind, types.UnionType) else {kind}
                if kinds <= {str, types.NoneType}:
                    texts.add(name)
                elif kinds <= {bool, int, float, Wave, tuple[int, ...], types.NoneType}:
                    signals.add(name)
    return sorted(signals), sorted(texts)


def _identify(gpu: dict[str, Any], index: int) -> dict[str, Any]:
    """Fill in what tells one GPU from another, the same on every run."""
    identity = uuid.uuid5(_NAMESPACE, f"gpu {index}")
    gpu.setdefault("uuid", f"GPU-{identity}")
    gpu.setdefault("serial", f"16{identity.int % 10**11:011d}")
    gpu.setdefault("pci_bus_id", f"00000000:{0x19 + 6 * index:02X}:00.0")
    if isinstance(gpu.get("mig"), list):
        gpu["mig"] = [
            {"uuid": f"MIG-{uuid.uuid5(_NAMESPACE, f'gpu {index} mig {n}')}", "gpu_instance": n + 1, **device}
            if isinstance(device, dict)
            else device
            for n, device in enumerate(gpu["mig"])
        ]
        if gpu["mig"]:
            gpu.setdefault("mig_mode", 1)
    return gpu


def _placements(gpu: Gpu) -> list[tuple[Profile, int]]:
    """Where the MIG devices of a GPU lie."""
    placed: list[tuple[Profile, int]] = []
    for device in gpu.mig:
        profile = H100_PROFILES[device.profile]
        start = profile.place(placed) if device.placement is None else device.placement
        if start is None or start not in profile.free(placed):
            raise ValueError(f"no room for {device.profile}")
        placed.append((profile, start))
    return placed


def _numbers(events: list[Event]) -> list[int]:
    """The ids of events: their own, or the one after the event before."""
    ids: list[int] = []
    for event in events:
        ids.append(event.id or (ids[-1] if ids else 0) + 1)
    return ids


def _section(title: str, model: BaseModel) -> Iterator[str]:
    if title:
        yield title
    signals, texts = vocabulary()
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name in texts and value:
            yield f"text {name} {' '.join(value.split())}"
        elif name in signals and value is not None:
            yield f"{name} {_number(value)}"


def _number(value: Wave | tuple[int, ...] | float) -> str:
    match value:
        case Wave(amplitude=0):
            return repr(value.base)
        case Wave():
            return f"{value.base!r} {value.shape} {value.amplitude!r} {value.period!r} {value.phase!r} {value.duty!r}"
        case tuple():
            return str(sum(1 << place for place in value))
        case _:
            return repr(value + 0)


def _rules(gpu: int, hang: list[str], errors: Mapping[str, int], lost: bool) -> Iterator[str]:
    yield from (f"rule {gpu} {call} {_HANG}" for call in hang)
    if lost:
        yield f"rule {gpu} * {ERRORS['GPU_IS_LOST']}"
    yield from (f"rule {gpu} {call} {code}" for call, code in errors.items())
