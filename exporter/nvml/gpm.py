"""GPU performance monitoring (nvmlGpm*, Hopper and newer): activity of SMs, tensor cores and DRAM without DCGM.

A pair of samples gives the mean of each metric between them, so its product with the time between is exact, however
far apart they are.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from math import isfinite
from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml.binding import ASK_AGAIN, entry_point, succeeded, will_not_answer

GRAPHICS, SM, OCCUPANCY, TENSOR, DRAM = 1, 2, 3, 5, 10  # nvmlGpmMetricId_t, percent
PCIE_TX, PCIE_RX = 20, 21  # MiB/s
_WANTED = (GRAPHICS, SM, OCCUPANCY, TENSOR, DRAM, PCIE_TX, PCIE_RX)
_SCALES = {PCIE_TX: float(1 << 20), PCIE_RX: float(1 << 20)}
_PERCENT = 0.01
_SHORTEST = 0.15  # seconds; nvml.h asks for more than 100 ms between the two samples


class Gpm:
    """Pairs of samples of one GPU, or of one of its GPU instances (MIG)."""

    def __init__(
        self, handle: Any, gpu_instance: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._handle = handle
        self._where = (handle,) if gpu_instance is None else (handle, gpu_instance)
        self._get = entry_point("nvmlGpmSampleGet" if gpu_instance is None else "nvmlGpmMigSampleGet")
        self._clock = clock
        self._samples: list[Any] = []
        self._at: float | None = None
        self._request = nvml.c_nvmlGpmMetricsGet_t()
        self._ask_at = 0.0

    def read(self) -> dict[int, float]:
        """Integral of each metric since the last call (ratio or bytes/s, times seconds); empty at first.

        Empty too where there is no GPM. Raises GpuGoneError.
        """
        now = self._clock()
        if now < self._ask_at or (self._at is not None and now - self._at < _SHORTEST):
            return {}
        if self._get is None or (not self._samples and not self._allocated()):
            self._ask_at = now + ASK_AGAIN
            return {}
        before, current = self._samples
        code = self._get(*self._where, current)
        if not succeeded(code):
            if will_not_answer(code):
                self._at, self._ask_at = None, now + ASK_AGAIN
            return {}
        found = self._metrics(before, current, now - self._at) if self._at is not None else {}
        if found is None:
            return {}  # the earlier sample stays, so that the interval is made up for at the next call
        self._at, self._samples = now, [current, before]
        return found

    def close(self) -> None:
        """Free both samples; they are host memory, so this is safe when the GPU is lost."""
        free = entry_point("nvmlGpmSampleFree")
        if free is not None:
            for sample in self._samples:
                free(sample)
        self._samples, self._at = [], None

    def _allocated(self) -> bool:
        try:
            if not nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
                return False
            self._samples = [nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()]
        except nvml.NVMLError as failure:
            succeeded(failure.value)
            return False
        return True

    def _metrics(self, before: Any, current: Any, elapsed: float) -> dict[int, float] | None:
        request = self._request
        request.version, request.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, len(_WANTED)
        request.sample1, request.sample2 = before, current
        for item, wanted in zip(request.metrics, _WANTED, strict=False):
            item.metricId = wanted
        get = entry_point("nvmlGpmMetricsGet")
        if get is None or not succeeded(get(ctypes.byref(request))):
            return None
        return {
            item.metricId: item.value * _SCALES.get(item.metricId, _PERCENT) * elapsed
            for item in request.metrics[: len(_WANTED)]
            if item.nvmlReturn == nvml.NVML_SUCCESS and isfinite(item.value) and item.value >= 0
        }
