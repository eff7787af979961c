"""The tap process: every configured tap, the queue behind them, and the desk at which the scorer fetches its work."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from pathlib import Path

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.line import Line
from palegreen.evaluators.taps.desk import Desk
from palegreen.evaluators.taps.file import follow
from palegreen.evaluators.taps.handoff import Handoff
from palegreen.evaluators.taps.otlp_grpc import OtlpGrpc
from palegreen.evaluators.taps.proxy import BUCKETS, Proxy
from palegreen.evaluators.taps.queue import Queue
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.evaluators.taps.sinks import Sinks
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError

_DRAIN = 20.0  # seconds that responses under way get at the end
_SETTLE = 3.0  # seconds that the scorer then gets for what waits


class TapProcess:
    """Taps of one configuration."""

    def __init__(self, config: EvaluateConfig, queue_path: Path, line: Line) -> None:
        self._config = config
        self._line = line
        self._tally = Tally(config.common(), BUCKETS)
        self._queue = Queue(config.queue_limit, self._tally)
        self._desk = Desk(self._queue, queue_path)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM. Raises ListenError before anything is served."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._desk.start()
        config, put = self._config, self._queue.put
        taps: dict[str, Proxy | Sinks | OtlpGrpc | Handoff] = {}
        if config.upstream:
            taps["proxy"] = Proxy(config, Sampler(config), put, self._tally)
        if config.sink_address:
            taps["sink"] = Sinks(config, put, self._tally)
        if config.otlp_grpc_address:
            taps["otlp_grpc"] = OtlpGrpc(config, put, self._tally)
        if config.tap_socket:
            taps["asgi"] = Handoff(config, put, self._tally)
        for tap in taps.values():
            await tap.start()
        gc.collect()
        gc.freeze()  # a full collection would walk all that was imported, and requests wait for it
        self._line.ready(**{name: tap.address for name, tap in taps.items()})
        background = [asyncio.create_task(self._report())]
        if config.file is not None:
            background.append(asyncio.create_task(self._read(config.file, alone=not taps)))
        await self._stop.wait()
        await asyncio.gather(*(tap.stop(_DRAIN) for tap in taps.values()))
        await self._settled(_SETTLE)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._desk.stop()
        self._line.readings(self._tally.readings())

    async def _report(self) -> None:
        while True:
            self._line.readings(self._tally.readings())
            await asyncio.sleep(1.0)

    async def _read(self, path: Path, alone: bool) -> None:
        await follow(path, self._config.follow, self._queue.put_patiently, self._tally)
        if alone:
            await self._settled(None)
            self._line.done()

    async def _settled(self, within: float | None) -> None:
        loop = asyncio.get_running_loop()
        until = None if within is None else loop.time() + within
        while len(self._queue) and (until is None or loop.time() < until):
            await asyncio.sleep(0.05)


def main() -> int:
    """Run as a child of `palegreen evaluate`; the exit status."""
    line = Line()
    try:
        asyncio.run(TapProcess(line.config, Path(line.queue), line).run())
    except ListenError as refused:
        return line.refuse(str(refused), "address")
    return 0


if __name__ == "__main__":
    sys.exit(main())
