"""The evaluator: it supervises the processes of taps, scorer and probes, shows their metrics, and reloads."""

from __future__ import annotations

import asyncio
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterable
from html import escape
from importlib.metadata import version
from pathlib import Path

import structlog

from palegreen.evaluators.child import Child, RefusedError, trial
from palegreen.evaluators.config import FIXED, EvaluateConfig
from palegreen.evaluators.deploy.candidates import Candidates
from palegreen.evaluators.deploy.deploys import Deploy, Deploys
from palegreen.evaluators.drift.alarm import alarms_of
from palegreen.runtime.app import App, page
from palegreen.runtime.exposition import Collected, Exposition, Readings
from palegreen.runtime.filewatch import FileWatch
from palegreen.runtime.log import configure
from palegreen.runtime.otlp.metrics import OtlpMetrics
from palegreen.runtime.own import OwnMetrics
from palegreen.runtime.web import ListenError, WebServer, parse_address
from palegreen.runtime.yamlfile import ConfigError

log = structlog.get_logger()

VERSION = version("palegreen")
_DRAIN = 25.0  # seconds that responses under way get when the evaluator is asked to stop
_TAP_TIMEOUT = 15.0
_LOOK_EVERY = 1.0
_PROBE_GRACE = 2.0
_SCORER = "palegreen.evaluators.scorer"
_PROBE = "palegreen.evaluators.probes.process"


class Evaluator:
    """The daemon beside one replica; `reload` gives the configuration as it is now, or raises ConfigError."""

    def __init__(
        self, config: EvaluateConfig, reload: Callable[[], EvaluateConfig], watched: Path | None = None
    ) -> None:
        self._config = config
        self._reload = reload
        self._file = FileWatch(watched)
        self._exposition: Exposition | None = None
        self._children: tuple[Child, ...] = ()
        self._tasks: dict[Child, asyncio.Task[None]] = {}
        self._hangup = asyncio.Event()
        self._otlp = _otlp(config, lambda: self.body(openmetrics=False, gzipped=False))
        self._about = OwnMetrics(VERSION, self._otlp)
        self._server: WebServer | None = None
        self._deploys = Deploys(lambda: self._config, self._declared)
        self._candidates = Candidates(lambda: self._config, self._deploys)
        self._current = _current(config)
        self._key = secrets.token_bytes(32)  # outlives scorers, so that what they hash stays the same

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until a file that is read once is done.

        Raises ListenError and ConfigError before anything is served.
        """
        host, port = parse_address(self._config.listen_address)
        app = App(self, {"/-/deploy": self._deploys.posted})
        server = self._server = WebServer(app, host, port, self._config.web_config_file)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        with tempfile.TemporaryDirectory(prefix="palegreen-") as folder:
            queue = Path(folder) / "queue"
            tap = self._child("tap", "palegreen.evaluators.taps.process", queue, _TAP_TIMEOUT, None)
            limit = self._config.scorer_memory_limit
            scorer = self._child("scorer", _SCORER, queue, self._config.scorer_timeout, limit)
            for child in (tap, scorer, *self._probe(queue)):
                self._keep(child)
            tasks: list[asyncio.Task[None]] = []
            loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
            try:
                await self._begin(tap)
                if self._otlp is not None:
                    self._otlp.start()
                log.info("evaluate.listening", address=f"{host}:{server.port}", tls=server.tls, version=VERSION)
                tasks.append(asyncio.create_task(self._watch(scorer, queue)))
                tasks.append(asyncio.create_task(self._until_done(tap, server)))
                tasks.append(asyncio.create_task(self._candidates.run()))
                for task in self._tasks.values():
                    task.add_done_callback(_stopper(server))  # refused, after the tap had begun
                await server.serve()
                _raise_refusal(self._tasks.values())
            finally:
                for probe in self._children[2:]:
                    await probe.stop(_PROBE_GRACE)
                await tap.stop(_DRAIN)
                await scorer.stop(5.0)
                tasks += self._tasks.values()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._deploys.save()
                server.close()
                if self._otlp is not None:
                    self._otlp.stop()
                log.info("evaluate.stopped")

    def _child(self, name: str, module: str, queue: Path, timeout: float, memory: int | None) -> Child:
        def brief() -> tuple[bytes, bytes]:
            return self._config.model_dump_json().encode(), self._key

        return Child(
            name,
            module,
            brief,
            queue,
            timeout=timeout,
            memory=memory,
            changed=self._forget,
            known=self._deploys.known,
            heard=self._deploys.hear,
        )

    def _probe(self, queue: Path) -> list[Child]:
        """The process of the probes, if there are any; the scorer's limits are its own too."""
        config = self._config
        if not config.probes():
            return []
        return [self._child("probe", _PROBE, queue, config.scorer_timeout, config.scorer_memory_limit)]

    def _keep(self, child: Child) -> None:
        self._children = (*self._children, child)
        self._tasks[child] = asyncio.create_task(child.run())

    async def _begin(self, tap: Child) -> None:
        """Until the tap listens. What others wait for may take longer and keeps nothing from being served."""
        ready = asyncio.create_task(tap.ready.wait())
        await asyncio.wait([ready, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        _raise_refusal(self._tasks.values())

    # What a daemon says of itself (palegreen.runtime.app.Status).

    def body(self, openmetrics: bool, gzipped: bool) -> bytes:
        """The current exposition."""
        shown = self._exposition or Exposition([*(child.readings for child in self._children), self._own()])
        self._exposition = shown
        return shown.body(openmetrics=openmetrics, gzipped=gzipped)

    def stuck(self) -> str:
        """Never: the children are looked after here."""
        return ""

    def waiting(self) -> str:
        """Children that are not ready."""
        waiting = [f"{child.name}: {child.about}" for child in self._children if not child.up]
        return f"not ready: {', '.join(waiting)}" if waiting or not self._children else ""

    def page(self) -> str:
        """Each process with its state."""
        rows = []
        for child in self._children:
            usage = child.usage()
            memory = f"{usage[0] >> 20} MiB" if usage else ""
            word = "up" if child.up else "down"
            restarts = ", ".join(f"{count} {reason}" for reason, count in child.restarts.items()) or "none"
            rows.append(
                f"<tr><td>{child.name}</td><td>{escape(child.about)}</td><td class={word}>{word}</td>"
                f"<td>{memory}</td><td>{restarts}</td></tr>"
            )
        alarms = [line for child in self._children for line in alarms_of(child.readings)]
        rows += [
            f"<tr><td>drift</td><td>{escape(alarm)}</td><td class=down>alarm</td><td></td><td></td></tr>"
            for alarm in alarms
        ]
        return page(
            f"Palegreen evaluator {VERSION}", ("process", "what", "state", "memory", "restarts"), rows, "starting"
        )

    def _forget(self) -> None:
        self._exposition = None

    def _own(self) -> Readings:
        collected = Collected()
        self._about.add(collected, self._server if self._config.web_config_file is not None else None)
        self._deploys.show(collected)
        self._candidates.show(collected)
        for child in self._children:
            collected.add("palegreen_evaluator_process_up", child.up, child.name)
            for reason in ("exited", "killed", "silent", "memory"):
                restarts = child.restarts.get(reason, 0)
                collected.add("palegreen_evaluator_restarts_total", restarts, child.name, reason)
            usage = child.usage()
            if usage is not None:
                collected.add("palegreen_evaluator_process_resident_memory_bytes", usage[0], child.name)
                collected.add("palegreen_evaluator_process_cpu_seconds_total", usage[1], child.name)
        return collected.readings()

    def _declared(self, deploy: Deploy) -> None:
        for child in self._children:
            child.tell({"kind": "deploy", **deploy._asdict()})
        self._forget()

    async def _until_done(self, tap: Child, server: WebServer) -> None:
        await tap.done.wait()
        log.info("evaluate.done", what="the file is read and scored")
        server.stop()

    async def _watch(self, scorer: Child, queue: Path) -> None:
        """Reload on SIGHUP, and when the configuration file or the current baseline has changed and is at rest."""
        while True:
            asked = True
            try:
                await asyncio.wait_for(self._hangup.wait(), _LOOK_EVERY)
            except TimeoutError:
                asked = False
            self._hangup.clear()
            promoted = self._current.changed()
            if asked or self._file.changed():
                await self._reload_now(scorer, queue)
            elif promoted:
                await self._take_promoted(scorer)
            self._deploys.look(child.readings for child in self._children)
            self._deploys.save()

    async def _reload_now(self, scorer: Child, queue: Path) -> None:
        """Start scorer and probes again with a changed configuration, or keep the one in force and say so."""
        self._file.read()
        before = self._config
        try:
            config = self._reload()
            later = [key for key in FIXED if getattr(config, key) != getattr(before, key)]
            config = config.model_copy(update={key: getattr(before, key) for key in FIXED})
            for module in (_SCORER, *([_PROBE] if config.probes() else [])):
                if refusal := await trial(module, (config.model_dump_json().encode(), self._key)):
                    raise ConfigError(refusal)
        except ConfigError as refused:
            self._about.refused()
            log.error("config.refused", cause=str(refused), effect="the previous configuration stays in force")
        else:
            if later:
                log.warning("config.restart_needed", keys=", ".join(later), effect="these stay as they were")
            configure(config.log_level, config.log_format)
            self._about.reloaded()
            log.info("config.reloaded")
            self._config = config
            self._current = _current(config)
            await scorer.restart()
            await self._renew_probe(queue)
        self._forget()

    async def _take_promoted(self, scorer: Child) -> None:
        """Start the scorer again with the baseline that has become the current one, or keep the one in force."""
        if refusal := await trial(_SCORER, (self._config.model_dump_json().encode(), self._key)):
            log.error("baseline.refused", cause=refusal, effect="the previous baseline stays in force")
            return
        log.info("baseline.promoted", folder=str(self._config.baseline), effect="the scorer is started again")
        await scorer.restart()

    async def _renew_probe(self, queue: Path) -> None:
        """Start the process of the probes again, or for the first time, or end it."""
        before, wanted = self._children[2:], self._probe(queue)
        if before and wanted:
            await before[0].restart()
            return
        for child in before:
            await child.stop(_PROBE_GRACE)
            del self._tasks[child]
        self._children = self._children[:2]
        for child in wanted:
            self._keep(child)


def _current(config: EvaluateConfig) -> FileWatch:
    """Tells when another baseline becomes the one that is given."""
    if config.baseline is None:
        return FileWatch(None)
    alone = config.baseline / "manifest.json"
    return FileWatch(alone if alone.exists() else config.baseline / "current" / "manifest.json")


def _otlp(config: EvaluateConfig, exposition: Callable[[], bytes]) -> OtlpMetrics | None:
    """What sends metrics by OTLP, if that is asked for. Raises ConfigError where the extra is missing."""
    return OtlpMetrics(config.otlp, config.resource(), exposition) if config.otlp is not None else None


def _stopper(server: WebServer) -> Callable[[asyncio.Task[None]], None]:
    """What ends the daemon when a child cannot begin; one that was ended on purpose ends nothing."""

    def stop(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            server.stop()

    return stop


def _raise_refusal(children: Iterable[asyncio.Task[None]]) -> None:
    for task in children:
        failure = task.exception() if task.done() else None
        if isinstance(failure, RefusedError):
            raise (ConfigError if failure.blame == "config" else ListenError)(str(failure)) from None
        if failure is not None:
            raise failure
