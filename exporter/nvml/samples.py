"""The driver's own sample buffers (nvmlDeviceGetSamples): every sample it took since the last look."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable
from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml.binding import ASK_AGAIN, entry_point, succeeded, will_not_answer

_MOST = 8192  # samples of one look; a driver keeps about a hundred
_MICRO = 1_000_000
_SILENT = 5.0  # seconds without a new sample after which the driver's whole buffer is looked at again
_MEMBERS = {
    nvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    nvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    nvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    nvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    nvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    nvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}


def member(value_type: int) -> str | None:
    """The member of nvmlValue_t that a value type (nvmlValueType_t) names; None for one that is not known."""
    return _MEMBERS.get(value_type)


class Samples:
    """One sample buffer of one GPU, for example NVML_GPU_UTILIZATION_SAMPLES."""

    def __init__(self, handle: Any, kind: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._function = entry_point("nvmlDeviceGetSamples")
        self._handle = handle
        self._kind = kind
        self._clock = clock
        self._seen = ctypes.c_ulonglong(0)
        self._type = ctypes.c_uint(0)
        self._count = ctypes.c_uint(0)
        self._buffer = (nvml.c_nvmlSample_t * 256)()
        self._ask_at = 0.0
        self._newest_at = clock()

    def drain(self) -> list[tuple[float, float]] | None:
        """New samples as (epoch seconds, value), oldest first; None where the GPU does not give any.

        Raises GpuGoneError.
        """
        if self._function is None or self._clock() < self._ask_at:
            return None
        now = self._clock()
        stale = now - self._newest_at > _SILENT
        if stale:  # a clock that was set back has left what we have seen in the future
            self._seen.value, self._newest_at = 0, now
        self._count.value = len(self._buffer)
        # By value and by reference as nvml.h declares; the structures are reused from call to call.
        code = self._function(
            self._handle, self._kind, self._seen, ctypes.byref(self._type), ctypes.byref(self._count), self._buffer
        )
        if code == nvml.NVML_ERROR_INSUFFICIENT_SIZE and len(self._buffer) < _MOST:
            self._buffer = (nvml.c_nvmlSample_t * (2 * len(self._buffer)))()
            return self.drain()
        if code == nvml.NVML_ERROR_NOT_FOUND:
            return []
        if not succeeded(code):
            if will_not_answer(code):
                self._ask_at = self._clock() + ASK_AGAIN
            return None
        found = list(self._newer(self._buffer[: self._count.value]))
        if found:
            self._newest_at = now
        return found[-1:] if stale else found  # what was read again from the beginning has been counted

    def _newer(self, samples: Iterable[Any]) -> Iterable[tuple[float, float]]:
        name = _MEMBERS.get(self._type.value, "uiVal")
        for sample in samples:
            if sample.timeStamp > self._seen.value:
                self._seen.value = sample.timeStamp
                yield sample.timeStamp / _MICRO, float(getattr(sample.sampleValue, name))


class Polled:
    """Utilisation of one GPU as it is now, for drivers that keep no samples: cheap enough to ask ten times a second."""

    def __init__(self, handle: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._function = entry_point("nvmlDeviceGetUtilizationRates")
        self._handle = handle
        self._clock = clock
        self._rates = nvml.c_nvmlUtilization_t()
        self._reference = ctypes.byref(self._rates)
        self._ask_at = 0.0

    def percent(self) -> int | None:
        """Percent of the driver's last period in which a kernel ran, None where it does not tell.

        Raises GpuGoneError.
        """
        if self._function is None or self._clock() < self._ask_at:
            return None
        code = self._function(self._handle, self._reference)
        if not succeeded(code):
            if will_not_answer(code):
                self._ask_at = self._clock() + ASK_AGAIN
            return None
        return int(self._rates.gpu)
