"""Processes on a GPU: the memory each holds, and the share of time in which its kernels ran."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml.binding import ASK_AGAIN, Calls, entry_point, succeeded, will_not_answer
from palegreen.exporter.nvml.usage import ProcessUse
from palegreen.runtime.exposition import Collected

_KINDS = (
    ("compute", (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetComputeRunningProcesses_v2)),
    ("graphics", (nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, nvml.nvmlDeviceGetGraphicsRunningProcesses_v2)),
    ("mps", (nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, nvml.nvmlDeviceGetMPSComputeRunningProcesses_v2)),
)
_MICRO = 1_000_000
_PERCENT = 0.01
_MOST = 8192  # samples of one look


class Busy:
    """Seconds of SM time by process, integrated from nvmlDeviceGetProcessUtilization."""

    def __init__(
        self,
        handle: Any,
        clock: Callable[[], float] = time.monotonic,
        function: Callable[..., int] | None = None,
    ) -> None:
        self.seconds: dict[int, float] = {}
        self.known = False
        self._function = function or entry_point("nvmlDeviceGetProcessUtilization")
        self._handle = handle
        self._clock = clock
        self._seen = 0  # microseconds; with 0 the driver's whole buffer is read again and again
        self._history = False
        self._drained_at = clock()
        self._last: dict[int, int] = {}
        self._buffer = (nvml.c_nvmlProcessUtilizationSample_t * 256)()
        self._ask_at = 0.0

    def drain(self, period: float | None) -> None:
        """Add what is new; `period` is the driver's sample period in seconds where it is known.

        A sample holds for the time since the process' sample before it, and at most for that since the last look and a
        sample period before: after a GPU has idled there is no sample for long. A driver that keeps several samples
        of a process has each hold for one period at most.
        """
        now = self._clock()
        since_look, self._drained_at = now - self._drained_at, now
        if self._function is None or self._clock() < self._ask_at:
            self.known = self._function is not None and self.known
            return
        count = ctypes.c_uint(len(self._buffer))
        code = self._function(self._handle, self._buffer, ctypes.byref(count), ctypes.c_ulonglong(self._seen))
        if code == nvml.NVML_ERROR_INSUFFICIENT_SIZE and count.value <= _MOST:
            self._buffer = (nvml.c_nvmlProcessUtilizationSample_t * max(count.value, len(self._buffer)))()
            count = ctypes.c_uint(len(self._buffer))
            code = self._function(self._handle, self._buffer, ctypes.byref(count), ctypes.c_ulonglong(self._seen))
        if code == nvml.NVML_ERROR_NOT_FOUND:  # idle
            self.known = True
        elif succeeded(code):
            self.known = True
            valid = (s for s in self._buffer[: count.value] if s.smUtil <= 100)
            self._add(sorted((s.timeStamp, s.pid, s.smUtil) for s in valid), since_look, period)
        elif will_not_answer(code):
            self.known, self._ask_at = False, self._clock() + ASK_AGAIN

    def forget_others(self, pids: set[int]) -> None:
        """Drop what is known of processes that have left."""
        for pid in self.seconds.keys() - pids:
            self.seconds.pop(pid, None)
            self._last.pop(pid, None)

    def _add(self, samples: list[tuple[int, int, int]], since_look: float, period: float | None) -> None:
        seen = self._seen
        new = [sample for sample in samples if sample[0] > seen]
        pids = [pid for _, pid, _ in new]
        self._history = self._history or len(set(pids)) < len(pids)
        most = 1.5 * period if period and self._history else since_look + (period or 1.0)
        for stamp, pid, percent in new:
            since = max(seen, self._last.get(pid, 0))
            if since:
                elapsed = min((stamp - since) / _MICRO, most)
                self.seconds[pid] = self.seconds.get(pid, 0.0) + percent * _PERCENT * elapsed
            self._last[pid] = stamp
        if new:
            self._seen = new[-1][0]


def processes(calls: Calls, handle: Any, busy: Busy | None, add: Collected) -> tuple[ProcessUse, ...] | None:
    """Publish the processes of a GPU or MIG device, and return them; None where the driver lists none of the kinds.

    `busy` is None on MIG, which does not tell.
    """
    memory: dict[int, int | None] = {}
    told = False
    for kind, functions in _KINDS:
        listed = calls.first(*((function, handle) for function in functions))
        if listed is None:
            continue
        told = True
        add.add("palegreen_gpu_processes", len(listed), kind)
        by_pid: dict[int, int] = {}
        for process in listed:
            memory.setdefault(process.pid, None)
            if process.usedGpuMemory is not None:
                by_pid[process.pid] = by_pid.get(process.pid, 0) + process.usedGpuMemory
        for pid, used in by_pid.items():
            add.add("palegreen_gpu_process_memory_used_bytes", used, str(pid), kind)
            # listed as compute and as graphics with the same context: the larger number has both
            memory[pid] = max(memory[pid] or 0, used)
    if not told:
        return None
    if busy is not None:
        busy.forget_others(set(memory))
        if busy.known:
            for pid in memory:
                add.add("palegreen_gpu_process_busy_seconds_total", busy.seconds.get(pid, 0.0), str(pid))
    return tuple(
        ProcessUse(pid, used, busy.seconds.get(pid, 0.0) if busy is not None and busy.known else None)
        for pid, used in memory.items()
    )
