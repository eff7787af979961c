"""The NVML library: loading it, starting it, and calling it without stumbling over what a GPU does not support."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvml
import structlog

log = structlog.get_logger()

# Not there, and not going to be there at the next reading either.
_UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NO_PERMISSION,
    }
)
_GONE = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)

ASK_AGAIN = 60.0  # seconds; rights, MIG mode and ECC mode can change while the daemon runs


class DriverError(Exception):
    """The driver cannot be used; the message is one line. `mismatch` if library and kernel driver differ."""

    def __init__(self, message: str, *, mismatch: bool = False) -> None:
        super().__init__(message)
        self.mismatch = mismatch


class GpuGoneError(Exception):
    """The GPU does not answer as a GPU any more: lost, removed, in need of a reset, or its driver is away."""


class Library:
    """The NVML library, from `path` or by the loader's search; one per process, as pynvml keeps it in a global."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.driver_version = ""
        self.cuda_version = ""
        self.simulated = False
        self._under_way: dict[object, float] = {}

    def start(self) -> None:
        """Load and initialise; raises DriverError. May be called again after it failed or after `release`."""
        if self._path is not None and pynvml.nvmlLib is None:
            try:
                pynvml.nvmlLib = ctypes.CDLL(str(self._path))
            except OSError as failure:
                raise DriverError(f"{self._path}: {failure}") from None
        with self._timed():
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as failure:
                raise _explained(failure) from None
        self.simulated = hasattr(pynvml.nvmlLib, "palegreen_simulated_driver")
        calls = Calls()
        self.driver_version = calls(pynvml.nvmlSystemGetDriverVersion) or ""
        cuda = calls(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        self.cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else ""

    def count(self) -> int:
        """Number of GPUs; raises DriverError."""
        with self._timed():
            try:
                return int(pynvml.nvmlDeviceGetCount())
            except pynvml.NVMLError as failure:
                raise _explained(failure) from None

    def release(self) -> None:
        """Shut down, so that nothing of the driver is held open; handles and event sets are of no use afterwards."""
        with self._timed():
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError as failure:
                log.warning("nvml.shutdown_failed", cause=str(failure), effect="devices may still be held open")

    def waiting(self) -> float:
        """Seconds for which the oldest of these calls, which no GPU answers alone, has been under way; 0 without."""
        return max((time.monotonic() - began for began in self._under_way.copy().values()), default=0.0)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        call = object()
        self._under_way[call] = time.monotonic()
        try:
            yield
        finally:
            del self._under_way[call]


class Calls:
    """Calls NVML for one GPU and remembers for a while what it does not support, so that it is seldom asked.

    `answered` is set by each call that gives something.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unsupported: dict[tuple[str, tuple[int, ...]], float] = {}
        self.answered = False

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the call returns, or None where the GPU, the driver or our rights do not give it.

        Raises GpuGoneError when there is no GPU to answer.
        """
        variant = (function.__name__, tuple(a for a in arguments if isinstance(a, int)))
        now = self._clock()
        if now < self._unsupported.get(variant, now):
            return None
        try:
            result = function(*arguments)
        except pynvml.NVMLError as failure:
            if failure.value in _GONE:
                raise GpuGoneError(str(failure)) from None
            if failure.value in _UNSUPPORTED:
                self._unsupported[variant] = now + ASK_AGAIN
            return None
        self.answered = True
        return result

    def first(self, *attempts: tuple[Any, ...]) -> Any:
        """Result of the first call that gives one: newer entry points first, then what older drivers have."""
        return next((result for call in attempts if (result := self(*call)) is not None), None)


def entry_point(name: str) -> Callable[..., int] | None:
    """A function of the loaded library to call with prepared buffers, or None where an old driver lacks it.

    pynvml's wrappers allocate and check at each call: twenty field values take 26 us through them, under one without.
    """
    return getattr(pynvml.nvmlLib, name, None)


def succeeded(code: int) -> bool:
    """Whether an NVML return code is success; raises GpuGoneError where it says that there is no GPU to answer."""
    if code in _GONE:
        raise GpuGoneError(str(pynvml.NVMLError(code)))
    return bool(code == pynvml.NVML_SUCCESS)


def will_not_answer(code: int) -> bool:
    """Whether asking again soon is pointless: not supported, no such function, no permission."""
    return code in _UNSUPPORTED


def _explained(failure: pynvml.NVMLError) -> DriverError:
    if failure.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return DriverError("the NVML library and the loaded kernel driver are of different versions", mismatch=True)
    if failure.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return DriverError("libnvidia-ml.so.1 is not on this machine")
    if failure.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return DriverError("the NVIDIA kernel driver is not loaded")
    return DriverError(f"NVML: {failure}")
