"""The tap process: every configured tap, the queue behind them, and the desk at which the scorer fetches its work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.line import Line
from palegreen.evaluators.taps.desk import Desk
from palegreen.evaluators.taps.exchange import BUCKETS
from palegreen.evaluators.taps.file import FileTap
from palegreen.evaluators.taps.passing import Passing
from palegreen.evaluators.taps.queue import Queue
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError
from palegreen.runtime.yamlfile import ConfigError

_DRAIN = 20.0  # seconds that responses under way get at the end
# There from the start, so that increase() sees the first.
_LOSSES = ("queue_full", "too_large", "scorer_died", "shutdown")
_SETTLE = 3.0  # seconds that the scorer then gets for what waits


class TapProcess:
    """Taps of one configuration. Raises ConfigError and ListenError where they cannot be had."""

    def __init__(self, config: EvaluateConfig, queue_path: Path, line: Line) -> None:
        self._config = config
        self._line = line
        self._tally = Tally(config.common(), BUCKETS)
        self._queue = Queue(config.queue_limit, self._tally)
        self._desk = Desk(self._queue, queue_path)
        self._passing = Passing(queue_path)
        self._passed: Callable[[], float] = lambda: 0.0
        self._stop = asyncio.Event()
        for name in config.taps():
            self._tally.count("palegreen_tap_received_total", name, by=0)
            for reason in _LOSSES:
                self._tally.count("palegreen_tap_dropped_total", name, reason, by=0)
        # What an ASGI tap has sampled at its rate is thinned by session and budget here, where all of them meet.
        self._thin = Sampler(session_interval=config.session_interval, per_second=config.samples_per_second)
        beside = config.store_path or queue_path
        self._position = beside.with_name(f"{beside.name}.position")

    async def run(self) -> None:
        """Serve until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._desk.start()
        async with contextlib.AsyncExitStack() as taps:
            self._line.ready(**await self._started(taps))
            gc.collect()
            gc.freeze()  # a full collection would walk all that was imported, and requests wait for it
            background = [asyncio.create_task(self._report())]
            if self._config.file is not None:
                background.append(asyncio.create_task(self._read(self._config.file)))
            for task in background:
                task.add_done_callback(self._end_if_failed)
            await self._stop.wait()
        await self._settled(_SETTLE)
        for task in background:
            task.cancel()
        results = await asyncio.gather(*background, return_exceptions=True)
        await self._desk.stop()
        self._line.readings(self._tally.readings())
        self._line.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _started(self, taps: contextlib.AsyncExitStack) -> dict[str, str]:
        """Start what is configured, to be stopped with the stack; where each listens. Imports only what is used."""
        config, put, tally, at = self._config, self._queue.put, self._tally, {}
        if config.upstream:
            from palegreen.evaluators.taps.proxy import Proxy

            proxy = Proxy(config, Sampler.of(config), put, tally)
            self._passed = proxy.passed
            await proxy.start()
            taps.push_async_callback(proxy.stop, _DRAIN)
            at["proxy"] = _shown(config.proxy_address, proxy.port)
        if config.sink_address:
            from palegreen.evaluators.taps.sinks import Sinks

            sinks = Sinks(config, put, tally)
            await sinks.start()
            taps.push_async_callback(sinks.stop)
            at["sink"] = _shown(config.sink_address, sinks.port)
        if config.otlp_grpc_address:
            from palegreen.evaluators.taps.otlp_grpc import OtlpGrpc

            grpc = OtlpGrpc(config, put, tally)
            await grpc.start()
            taps.push_async_callback(grpc.stop)
            at["otlp_grpc"] = _shown(config.otlp_grpc_address, grpc.port)
        if config.tap_socket:
            from palegreen.evaluators.taps.handoff import Handoff

            handoff = Handoff(config, self._put_thinned, tally)
            await handoff.start()
            taps.push_async_callback(handoff.stop)
            at["asgi"] = str(config.tap_socket)
        return at

    def _put_thinned(self, envelope: Envelope) -> None:
        if envelope.meta.get("sampled") == "rate":
            decision = self._thin.decide(str(envelope.meta.get("session", "")))
            if decision.reason is not None:
                self._tally.count("palegreen_tap_unsampled_total", "asgi", decision.reason)
                return
        self._queue.put(envelope)

    def _end_if_failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._stop.set()

    async def _report(self) -> None:
        while True:
            self._line.readings(self._tally.readings())
            self._passing.note(self._passed())
            await asyncio.sleep(1.0)

    async def _read(self, path: Path) -> None:
        config = self._config
        put = self._queue.put_patiently
        await FileTap(path, config.follow, put, self._tally, position=self._position).run()
        if config.taps() == ("file",):
            await self._settled(None)
            self._line.done()

    async def _settled(self, within: float | None) -> None:
        loop = asyncio.get_running_loop()
        until = None if within is None else loop.time() + within
        while len(self._queue) and (until is None or loop.time() < until):
            await asyncio.sleep(0.05)


def _shown(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def main() -> int:
    """Run as a child of `palegreen evaluate`; the exit status."""
    line = Line()
    try:
        asyncio.run(TapProcess(line.config, Path(line.queue), line).run())
    except ConfigError as refused:
        return line.refuse(str(refused), "config")
    except ListenError as refused:
        return line.refuse(str(refused), "address")
    return 0


if __name__ == "__main__":
    sys.exit(main())
