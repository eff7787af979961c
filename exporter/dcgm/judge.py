"""Whether a number on dcgm-exporter's page is a measurement: what is summed up, and what is known to be wrong."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from palegreen.catalogue.dcgm import fields
from palegreen.exporter.dcgm.client import GpuSample

PROFILING = tuple(key for key, field in fields().fields.items() if field.kind == "share")
_STILL = 300.0  # seconds, ten of the exporter's collections; a GPU under power uses energy in each
_BUSY = 0.1  # utilisation from which some unit must have worked
_READINGS = 3  # in a row that must agree: utilisation and profiling are averages over different times


class Shares:
    """Ratios summed up to seconds: a ratio holds for the time since the one before, at most `gap` seconds of it.

    DCGM gives no sample times, so a sum lags by up to one of its collections; the error does not grow.
    """

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._sums: dict[Hashable, tuple[float, float]] = {}

    def add(self, key: Hashable, ratio: float, now: float) -> float:
        """The sum with the ratio read `now`; the first one of a key only starts it."""
        total, before = self._sums.get(key, (0.0, now))
        elapsed = now - before
        if elapsed <= self._gap:
            total += ratio * elapsed
        self._sums[key] = total, now
        return total

    def forget(self, now: float) -> None:
        """Drop what was not read for long: what comes back starts from 0."""
        self._sums = {key: (total, at) for key, (total, at) in self._sums.items() if now - at <= self._gap}


class Frozen:
    """GPUs of which the exporter repeats what it once read, as it does of a lost one: their energy stands still."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[float, float]] = {}

    def judged(self, now: float, gpus: Iterable[GpuSample]) -> dict[str, bool]:
        """Whether each GPU whose energy is known is frozen, by UUID."""
        energies = {gpu.uuid: gpu.energy_joules for gpu in gpus if gpu.energy_joules and not gpu.gpu_instance}
        before, self._moved = self._moved, {}
        for uuid, energy in energies.items():
            last, since = before.get(uuid, (energy, now))
            self._moved[uuid] = (energy, since if energy == last else now)
        return {uuid: now - since >= _STILL for uuid, (_, since) in self._moved.items()}


class Silent:
    """GPUs whose profiling fields are all 0 while kernels run on them: the profiling module gives nothing."""

    def __init__(self) -> None:
        self._streaks: dict[str, int] = {}

    def judged(self, gpus: Iterable[GpuSample]) -> set[str]:
        """Their UUIDs. On MIG there is no utilisation to compare with."""
        before, self._streaks = self._streaks, {}
        for gpu in gpus:
            given = [number for key in PROFILING if (number := getattr(gpu, key)) is not None]
            if given and not any(given) and (gpu.utilization_ratio or 0.0) >= _BUSY:
                self._streaks[gpu.uuid] = before.get(gpu.uuid, 0) + 1
        return {uuid for uuid, streak in self._streaks.items() if streak >= _READINGS}
