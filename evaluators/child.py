"""One child process of the evaluator: started, listened to, and started again when it dies, hangs or grows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog

from palegreen.evaluators.line import EXIT_REFUSED
from palegreen.inprocess.frame import Decoder, encode
from palegreen.runtime.exposition import NOTHING, Readings

log = structlog.get_logger()

_STARTING = 300.0  # seconds of silence allowed while a child starts: it may have a large model to load
_BACKOFF = (0.2, 30.0)  # seconds before a child is started again, doubling
_STEADY = 60.0  # seconds after which a start counts as a success
_LOOK_EVERY = 0.5  # seconds between two looks at its memory
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")

Reason = Literal["exited", "killed", "silent", "memory"]


class RefusedError(Exception):
    """A child that cannot begin, for a reason that a person must mend; `blame` is config or address."""

    def __init__(self, why: str, blame: str) -> None:
        super().__init__(why)
        self.blame = blame


class Child:
    """Runs `python -m MODULE`. `brief` is told at each start: the configuration as JSON, and a key.

    Args:
        timeout: seconds of silence after which it is killed; it reports once a second.
        memory: bytes of resident memory beyond which it is killed, or None.
        changed: called when its readings or its state changed.
        known: what it is given at each start beside its brief, see `Line.known`; JSON values.
        heard: called with what it tells beyond its state, see `Line.tell`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        brief: Callable[[], tuple[bytes, bytes]],
        queue: Path,
        *,
        timeout: float,
        memory: int | None = None,
        changed: Callable[[], None] = lambda: None,
        known: Callable[[], dict[str, Any]] = dict,
        heard: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.readings: Readings = NOTHING
        self.restarts: dict[Reason, int] = {}
        self.ready = asyncio.Event()
        self.done = asyncio.Event()
        self.about = "starting"
        self._module = module
        self._brief = brief
        self._queue = queue
        self._timeout = timeout
        self._memory = memory
        self._changed = changed
        self._known = known
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._killed_for: Reason | None = None
        self._stopping = False
        self._again = False

    @property
    def up(self) -> bool:
        """Whether it works and has reported lately."""
        return self.ready.is_set()

    def usage(self) -> tuple[int, float] | None:
        """Resident bytes and CPU seconds of the process, None if there is none."""
        if self._process is None or self._process.returncode is not None:
            return None
        with contextlib.suppress(OSError, ValueError, IndexError):
            folder = Path(f"/proc/{self._process.pid}")
            resident = int((folder / "statm").read_text().split()[1]) * _PAGE
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            return resident, (int(fields[11]) + int(fields[12])) / _TICK
        return None

    def tell(self, header: dict[str, Any]) -> None:
        """Something for it to know, see `Line.told`; one that is not there is told nothing."""
        process = self._process
        if process is not None and process.returncode is None and process.stdin is not None:
            process.stdin.write(encode(header))

    async def run(self) -> None:
        """Keep it running until `stop`. Raises RefusedError if it cannot begin the first time."""
        delay, began_before = _BACKOFF[0], False
        while not self._stopping:
            began = time.monotonic()
            status = await self._once(raise_refusal=not began_before)
            began_before = True
            if self._stopping:
                return
            if self._again:  # asked for, with another brief
                continue
            reason: Reason = self._killed_for or ("killed" if status < 0 else "exited")
            self.restarts[reason] = self.restarts.get(reason, 0) + 1
            delay = _BACKOFF[0] if time.monotonic() - began > _STEADY else delay
            self.about = f"{reason}, started again"
            log.error(f"{self.name}.restart", reason=reason, status=status, again_in=f"{delay:g}s")
            self._changed()
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF[1])

    async def restart(self) -> None:
        """Start it again with a new brief, and wait until it is ready."""
        self._again = True
        await self._end(5.0)
        await self.ready.wait()

    async def stop(self, grace: float) -> None:
        """End it: asked first, killed after `grace` seconds."""
        self._stopping = True
        await self._end(grace)

    async def _end(self, grace: float) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.ready.clear()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _once(self, raise_refusal: bool) -> int:
        self._killed_for, self._again = None, False
        process, out = await _started(self._module, str(self._queue), self._brief(), self._known)
        self._process = process
        try:
            refusal = await self._listen(process, out)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self.ready.clear()
            self.readings = NOTHING
            self._changed()
        status = await process.wait()
        if status == EXIT_REFUSED and refusal is not None:
            if raise_refusal:
                raise refusal
            log.error(f"{self.name}.refused", cause=str(refusal))
        return status

    async def _listen(self, process: asyncio.subprocess.Process, out: asyncio.StreamReader) -> RefusedError | None:
        """Until it ends, or is to be killed."""
        decoder, refusal, heard = Decoder(), None, time.monotonic()
        reading = asyncio.ensure_future(out.read(1 << 20))
        try:
            while True:
                await asyncio.wait([reading], timeout=_LOOK_EVERY)
                self._killed_for = self._reason_to_kill(heard)
                if self._killed_for is not None:
                    return None
                if not reading.done():
                    continue
                heard, data = time.monotonic(), reading.result()
                if not data:
                    await process.wait()
                    return refusal
                for header, parts in decoder.feed(data):
                    refusal = self._take(header, parts, process.pid) or refusal
                self._changed()
                reading = asyncio.ensure_future(out.read(1 << 20))
        finally:
            reading.cancel()

    def _reason_to_kill(self, heard: float) -> Reason | None:
        if time.monotonic() - heard > (self._timeout if self.ready.is_set() else _STARTING):
            return "silent"
        usage = self.usage() if self._memory is not None else None
        return "memory" if usage is not None and self._memory is not None and usage[0] > self._memory else None

    def _take(self, header: dict[str, Any], parts: list[bytes], pid: int) -> RefusedError | None:
        match header["kind"]:
            case "starting":
                self.about = header["what"]
                log.info(f"{self.name}.starting", what=header["what"])
            case "ready":
                facts = {key: value for key, value in header.items() if key != "kind"}
                self.about = ", ".join(f"{key} {value}" for key, value in facts.items())
                self.ready.set()
                log.info(f"{self.name}.ready", pid=pid, **facts)
            case "readings":
                self.readings = Readings(**orjson.loads(parts[0]))
            case "done":
                self.done.set()
            case "refused":
                return RefusedError(header["why"], header["blame"])
            case _:
                self._heard(header)
        return None


async def trial(module: str, brief: tuple[bytes, bytes]) -> str:
    """Why a child of this module would refuse such a brief; empty if it would not."""
    process, out = await _started(module, "", brief, dict, "--trial")
    said = await out.read()
    status = await process.wait()
    refusals = [header["why"] for header, _ in Decoder().feed(said) if header["kind"] == "refused"]
    return refusals[0] if refusals else "" if status == 0 else f"it ended with status {status}"


async def _started(
    module: str, queue: str, brief: tuple[bytes, bytes], known: Callable[[], dict[str, Any]], *arguments: str
) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """A child that has its brief, and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the parent alone
    )
    if process.stdin is None or process.stdout is None:  # for the type checker: both are pipes
        raise RuntimeError("a child without pipes")
    process.stdin.write(encode({"queue": queue, "known": known()}, brief))
    return process, process.stdout
