"""The allocator probe: PyTorch's allocator statistics of this process, once a second, for the node daemon.

`start()` is all there is to call; the plugins of vLLM and SGLang and the `.pth` route call it too. A daemon thread
looks whether PyTorch is there and CUDA is in use; it imports neither and initialises neither. Nothing it meets is
raised into the serving process, and each cause is logged once.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from typing import Any

from palegreen.inprocess.recordfile import RecordFile
from palegreen.inprocess.torchstats import blocks, statistics, summaries

DIRECTORY_VARIABLE = "PALEGREEN_ALLOCATOR_DIR"

_INTERVAL = 1.0  # seconds between two readings of the statistics
_SNAPSHOT_EVERY = 30.0  # seconds at least; a snapshot walks every block with the interpreter locked
_SNAPSHOT_SHARE = 1000  # and this many times what the last one took, so at most 0.1% of the time
_BLOCKS = 10_000  # no snapshot of more: it would lock the interpreter for tens of milliseconds
_CAUSES = 20  # logged at most

_log = logging.getLogger("palegreen.allocator")
_lock = threading.Lock()
_said: set[str] = set()
_probe: Probe | None = None
_hooked = False


def start(directory: str | None = None, interval: float = _INTERVAL, snapshot_every: float = _SNAPSHOT_EVERY) -> bool:
    """Start the probe of this process, and of those it forks; True when one runs, by this call or an earlier one.

    `directory` is by default that of PALEGREEN_ALLOCATOR_DIR; without it nothing is done. The times are in seconds.
    """
    try:
        return _start(directory or os.environ.get(DIRECTORY_VARIABLE, ""), interval, snapshot_every)
    except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
        _say(f"the allocator probe does not start: {failure!r}")
        return False


def plugin() -> None:
    """Entry point of vLLM (`vllm.general_plugins`) and SGLang (`sglang.srt.plugins`)."""
    start()


def _start(directory: str, interval: float, snapshot_every: float) -> bool:
    global _probe, _hooked
    if not directory:
        _say(f"no allocator statistics: {DIRECTORY_VARIABLE} is not set", logging.INFO)
        return False
    if not os.path.isdir(directory):  # noqa: PTH112
        _say(f"no allocator statistics: {directory} is not a folder")
        return False
    with _lock:
        if _probe is None:
            _probe = Probe(directory, interval, snapshot_every)
            _probe.start()
        if not _hooked:
            os.register_at_fork(after_in_child=_after_fork)
            atexit.register(_at_exit)
            _hooked = True
    return True


def _after_fork() -> None:
    """Threads end at a fork and locks may be held for ever: the child begins anew, with a file of its own."""
    global _probe, _lock
    _lock = threading.Lock()
    parents, _probe = _probe, None
    if parents is None:
        return
    try:
        parents.abandon()
        _probe = parents.again()
        _probe.start()
    except Exception as failure:  # noqa: BLE001
        _say(f"the allocator probe does not start after a fork: {failure!r}")


def _at_exit() -> None:
    if _probe is not None:
        _probe.stop()


def _say(text: str, level: int = logging.WARNING) -> None:
    if text not in _said and len(_said) < _CAUSES:
        _said.add(text)
        _log.log(level, text)


class Probe:
    """The thread, and what it remembers. `directory` must be there; times are in seconds."""

    def __init__(self, directory: str, interval: float, snapshot_every: float) -> None:
        self._settings = (directory, interval, snapshot_every)
        self._directory, self._interval, self._snapshot_every = self._settings
        self._file: RecordFile | None = None
        self._devices: dict[int, str] = {}  # those that hold memory: UUID by index
        self._snapshots: dict[int, dict[str, int]] = {}
        self._snapshot_at = 0.0
        self._snapshot_began = 0.0
        self._snapshot_took = 0.0
        self._snapshot_due = 0.0
        self._took = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="palegreen allocator", daemon=True)

    def again(self) -> Probe:
        """A fresh one like this."""
        return Probe(*self._settings)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def abandon(self) -> None:
        """Let go of what belongs to the parent process."""
        if self._file is not None:
            self._file.abandon()
            self._file = None

    def stop(self) -> None:
        """End the thread and remove the file."""
        self._stopped.set()
        self._thread.join(self._interval)
        if self._file is not None:
            try:
                self._file.close()
            except OSError as failure:
                _say(f"the allocator probe's file stays behind: {failure}")

    def _run(self) -> None:
        wait = 0.0
        while not self._stopped.wait(wait):
            wait = self._interval
            try:
                self._tick()
            except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
                self._forget_file()
                _say(f"no allocator statistics for now: {failure!r}")
                wait = self._snapshot_every

    def _forget_file(self) -> None:
        """What cannot be kept up to date is taken away; the next tick begins a new one."""
        held, self._file = self._file, None
        if held is not None:
            try:
                held.close()
            except OSError as failure:
                _say(f"the allocator probe's file stays behind: {failure}")

    def _tick(self) -> None:
        cuda = _initialised_cuda()
        if cuda is None:
            return
        began = time.perf_counter()
        record = self._record(cuda)
        if record is None:
            return
        if self._file is None:
            self._file = RecordFile(self._directory)
        self._file.write(json.dumps(record, separators=(",", ":"), allow_nan=False).encode())
        if self._snapshot_began < began:
            self._took = time.perf_counter() - began

    def _record(self, cuda: Any) -> dict[str, Any] | None:
        """What is told of this process, None before it holds any GPU memory."""
        backend = _backend(cuda)
        record: dict[str, Any] = {"backend": backend, "stats_seconds": self._took}
        if backend != "native":  # part of it would be zero, and asking may open GPUs that it does not use
            return record
        read = getattr(cuda, "memory_stats_as_nested_dict", None) or cuda.memory_stats
        now = time.monotonic()
        due = now >= self._snapshot_due
        known = self._devices if self._devices and not due else range(cuda.device_count())
        raw = {index: read(index) for index in known}
        held = {index: found for index, stats in raw.items() if (found := statistics(stats)).get("reserved")}
        for index in held:
            if index not in self._devices:
                self._devices[index] = _uuid(cuda, index)
        if not self._devices:
            return None
        if due:
            self._snapshot(cuda, now, sum(blocks(stats) for stats in raw.values()))
        devices = []
        for index, uuid in self._devices.items():
            device: dict[str, Any] = {"uuid": uuid, **held.get(index, statistics(raw.get(index, {})))}
            if index in self._snapshots:
                device["snapshot"] = self._snapshots[index]
            devices.append(device)
        record["devices"] = devices
        if self._snapshots:
            record["snapshot_age"] = now - self._snapshot_at
            record["snapshot_seconds"] = self._snapshot_took
        return record

    def _snapshot(self, cuda: Any, now: float, expected: int) -> None:
        began = self._snapshot_began = time.perf_counter()
        self._snapshot_due = now + self._snapshot_every
        self._snapshots = {}
        if expected > _BLOCKS:
            _say(f"no free-block statistics while the allocator has over {_BLOCKS} blocks")
            return
        try:
            self._snapshots = summaries(_segments(cuda))
        except Exception as failure:  # noqa: BLE001 - the statistics are good without it
            _say(f"no free-block statistics: {failure!r}")
            return
        self._snapshot_at, self._snapshot_took = now, time.perf_counter() - began
        self._snapshot_due = now + max(self._snapshot_every, _SNAPSHOT_SHARE * self._snapshot_took)


def _initialised_cuda() -> Any:
    """`torch.cuda` where this process has initialised CUDA itself, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # a module that is being imported may not have it yet
    initialised = getattr(cuda, "is_initialized", None)
    return cuda if initialised is not None and initialised() else None


def _backend(cuda: Any) -> str:
    """Name of the allocator; PyTorch before 2.0 has one and no name for it."""
    ask = getattr(cuda, "get_allocator_backend", None)
    return str(ask()) if ask is not None else "native"


def _uuid(cuda: Any, index: int) -> str:
    """UUID of a device that is in use, without prefix; empty before PyTorch 2.4, which does not tell."""
    found = str(getattr(cuda.get_device_properties(index), "uuid", ""))
    return found.removeprefix("GPU-").removeprefix("MIG-").lower()


def _segments(cuda: Any) -> Any:
    """All segments, without the traces of a recorded history where they can be left out."""
    try:
        return cuda.memory_snapshot(include_traces=False)
    except TypeError:
        return cuda.memory_snapshot()
