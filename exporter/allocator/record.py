"""What a serving process says of its allocator, taken whole or not at all, and the ratios that follow from it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, NoReturn

from palegreen.inprocess.recordfile import MAGIC

_DEVICES = 64
_LARGEST = 1 << 53  # what a float holds exactly
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|")
BACKENDS = ("native", "cudaMallocAsync", "pluggable")


class RecordError(Exception):
    """The content cannot be believed; the message is one line. `impossible` if numbers contradict each other."""

    def __init__(self, message: str, *, impossible: bool = False) -> None:
        super().__init__(message)
        self.impossible = impossible


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sums over one snapshot in bytes, as `palegreen.inprocess.torchstats.summaries` explains them."""

    reserved: int
    allocated: int
    requested: int
    inactive_split: int
    free: int
    largest: int
    largest_sum: int
    private: int
    expandable: int

    def __post_init__(self) -> None:
        if not (
            self.requested <= self.allocated <= self.reserved
            and self.largest <= self.largest_sum <= self.free <= self.reserved - self.allocated
            and self.inactive_split <= self.free
            and self.expandable <= self.reserved
        ):
            raise RecordError("sums of a snapshot that contradict each other", impossible=True)

    @property
    def split(self) -> float | None:
        """Share of what is reserved that `empty_cache` cannot give back, since live blocks share its segments."""
        return self.inactive_split / self.reserved if self.reserved else None

    @property
    def external(self) -> float | None:
        """Share of the free bytes that lies outside the largest free block of each stream.

        That is `1 - largest/sum` of each stream, weighted by its free bytes. None without ordinary free blocks.
        """
        return 1 - self.largest_sum / self.free if self.free else None

    @property
    def rounding(self) -> float | None:
        """Share of what is allocated that nobody asked for; None where PyTorch does not tell what was asked for."""
        return 1 - self.requested / self.allocated if self.requested else None


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as one process uses it: bytes now over all pools, and counts since the process began.

    `uuid` has no prefix and is empty where PyTorch does not tell it.
    """

    uuid: str
    allocated: int
    active: int
    reserved: int
    requested: int | None
    inactive_split: int | None
    retries: int | None
    ooms: int | None
    snapshot: Snapshot | None

    def __post_init__(self) -> None:
        in_order = (self.requested or 0) <= self.allocated <= self.active <= self.reserved
        if not in_order or (self.inactive_split or 0) > self.reserved:
            raise RecordError("statistics that contradict each other", impossible=True)
        if self.active + (self.inactive_split or 0) > self.reserved:
            # Unmapping an expandable segment may lower what is reserved and leave this count: it is not known then.
            object.__setattr__(self, "inactive_split", None)

    @property
    def releasable(self) -> int | None:
        """Bytes that `empty_cache` would give back."""
        return None if self.inactive_split is None else self.reserved - self.active - self.inactive_split


@dataclass(frozen=True, slots=True)
class Record:
    """One process: its allocator, its devices, and what the probe costs it (seconds a reading, age of the snapshot)."""

    backend: str
    devices: tuple[Device, ...]
    stats_seconds: float | None
    snapshot_seconds: float | None
    snapshot_age: float | None


def unframed(content: bytes) -> bytes:
    """The body of a record as it lies in a file; raises RecordError."""
    head, _, rest = content.partition(b"\n")
    match = re.fullmatch(re.escape(MAGIC) + rb" ([0-9]{1,6})", head)
    if match is None:
        raise RecordError("it does not begin as a record does")
    return rest[: int(match[1])]


def parsed(body: bytes) -> Record:
    """The record in a body; raises RecordError."""
    try:
        told = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RecordError("it is not JSON") from None
    if not isinstance(told, dict):
        raise RecordError("it is no object")
    devices = told.get("devices", [])
    if not isinstance(devices, list) or len(devices) > _DEVICES:
        raise RecordError(f"devices must be a list of at most {_DEVICES}")
    backend = told.get("backend")
    found = tuple(_device(device) for device in devices)
    if len({device.uuid for device in found}) < len(found):
        raise RecordError("one GPU twice", impossible=True)
    return Record(
        backend if backend in BACKENDS else "other",
        found,
        _seconds(told, "stats_seconds"),
        _seconds(told, "snapshot_seconds"),
        _seconds(told, "snapshot_age"),
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _device(told: Any) -> Device:
    if not isinstance(told, dict):
        raise RecordError("a device is no object")
    uuid = told.get("uuid")
    if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
        raise RecordError("a device without a UUID of a GPU's form")
    snapshot = told.get("snapshot")
    if snapshot is not None and not isinstance(snapshot, dict):
        raise RecordError("a snapshot is no object")
    return Device(
        uuid,
        _count(told, "allocated"),
        _count(told, "active"),
        _count(told, "reserved"),
        _count(told, "requested") if "requested" in told else None,
        _count(told, "inactive_split") if "inactive_split" in told else None,
        _count(told, "retries") if "retries" in told else None,
        _count(told, "ooms") if "ooms" in told else None,
        None if snapshot is None else Snapshot(*(_count(snapshot, field.name) for field in fields(Snapshot))),
    )


def _count(told: dict[str, Any], key: str) -> int:
    value = told.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RecordError(f"{key} must be a whole number")
    if not 0 <= value <= _LARGEST:
        raise RecordError(f"{key} is out of bounds", impossible=True)
    return value


def _seconds(told: dict[str, Any], key: str) -> float | None:
    value = told.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not (isfinite(value) and 0 <= value < _LARGEST):
        raise RecordError(f"{key} must be a number of seconds")
    return float(value)
