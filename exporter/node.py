"""The node daemon: sources from a configuration, a snapshot over them, a server in front, reloads and signals."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from palegreen.catalogue.engines import Engine, engines, resolve
from palegreen.exporter.attribution.replicas import EngineGpus, Replica
from palegreen.exporter.config import FIXED, EngineConfig, NodeConfig
from palegreen.exporter.engines.fetch import Fetcher
from palegreen.exporter.engines.mapping import Mapper
from palegreen.exporter.engines.source import EngineSource, Identity
from palegreen.exporter.nvml.source import NvmlSource
from palegreen.exporter.snapshot import Snapshots
from palegreen.exporter.source import Runner, Source
from palegreen.exporter.sources import node_sources
from palegreen.exporter.status import NodeStatus
from palegreen.runtime.app import App
from palegreen.runtime.clienttls import verifying
from palegreen.runtime.exposition import Collected, Readings
from palegreen.runtime.filewatch import FileWatch
from palegreen.runtime.log import configure
from palegreen.runtime.otlp.metrics import OtlpMetrics
from palegreen.runtime.own import OwnMetrics
from palegreen.runtime.secretfile import read_secret
from palegreen.runtime.web import WebServer, parse_address
from palegreen.runtime.yamlfile import ConfigError, Document

log = structlog.get_logger()

VERSION = version("palegreen")
_SWITCH = 0.0001  # seconds a source may compute while a scrape waits for the interpreter; Python's default is 0.005
_LOOK_EVERY = 1.0  # seconds between two looks at the configuration file


class Node:
    """The daemon of one node; `reload` gives the configuration as it is now, or raises ConfigError."""

    def __init__(self, config: NodeConfig, reload: Callable[[], NodeConfig], watched: Path | None = None) -> None:
        self._config = config
        self._reload = reload
        self._file = FileWatch(watched)
        self._server: WebServer | None = None
        self._mappings: tuple[Engine, ...] = ()
        self._runners: dict[str, Runner] = {}
        self._fixed: tuple[str, ...] = ()
        self._engine_gpus: EngineGpus | None = None
        self._otlp = _otlp(config, lambda: self._snapshots.body(openmetrics=False, gzipped=False))
        self._about = OwnMetrics(VERSION, self._otlp)
        self._snapshots = Snapshots(self._own)
        self._arrange(config)

    def once(self) -> bytes:
        """Read every source once and return the exposition as text."""
        engines = [runner for key, runner in self._runners.items() if key not in self._fixed]
        self._read([self._runners[key] for key in self._fixed])
        for runner in self._runners.values():
            if isinstance(runner.source, NvmlSource) and runner.state().up:
                runner.source.wait()  # GPUs are read in threads of their own
        for key in self._fixed:  # what builds on the GPUs comes after them
            if self._runners[key].state().up:  # else it may hang here too
                self._runners[key].read_once()
        self._read(engines)  # which are joined to their GPUs
        self._snapshots.refresh()
        return self._snapshots.body(openmetrics=False, gzipped=False)

    @staticmethod
    def _read(runners: Sequence[Runner]) -> None:
        for runner in runners:
            runner.start()
        while not all(runner.state().tried for runner in runners):
            time.sleep(0.01)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ListenError and ConfigError before anything is started."""
        host, port = parse_address(self._config.listen_address)
        server = WebServer(App(NodeStatus(self._snapshots, VERSION)), host, port, self._config.web_config_file)
        self._server = server
        sys.setswitchinterval(_SWITCH)
        gc.collect()
        gc.freeze()  # else a full collection walks all that was imported, and scrapes wait for it (30 ms)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_one_line)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_now)
        for runner in self._runners.values():
            runner.start()
        self._snapshots.start()
        if self._otlp is not None:
            self._otlp.start()
        log.info("node.listening", address=f"{host}:{server.port}", tls=server.tls, version=VERSION)
        watching = asyncio.create_task(self._watch())
        try:
            await server.serve()
        finally:
            watching.cancel()
            self._stop()
            log.info("node.stopped")

    def _stop(self) -> None:
        if self._otlp is not None:
            self._otlp.stop()
        self._snapshots.stop()
        for runner in self._runners.values():
            runner.stop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._file.changed():
                self._reload_now()

    def _reload_now(self) -> None:
        """Take over a changed configuration, or keep the one in force and say so."""
        self._file.read()
        try:
            config = self._reload()
            self._arrange(config, start=True)
        except Exception as refused:  # noqa: BLE001 - a defect must not end the watching of the file
            self._about.refused()
            defect = {} if isinstance(refused, ConfigError) else {"exc_info": True}
            effect = "the previous configuration stays in force"
            log.error("config.refused", cause=str(refused), effect=effect, **defect)
        else:
            later = [key for key in FIXED if getattr(config, key) != getattr(self._config, key)]
            if later:
                log.warning("config.needs_restart", keys=", ".join(later))
            configure(config.log_level, self._config.log_format)
            self._config = config.model_copy(update={key: getattr(self._config, key) for key in FIXED})
            self._about.reloaded()
            log.info("config.reloaded", engines=len(config.engines))
        self._snapshots.changed()

    def _arrange(self, config: NodeConfig, *, start: bool = False) -> None:
        """Start what is new, stop what is no longer asked for, leave the rest as it runs.

        Raises ConfigError before anything is touched.
        """
        known = mappings(config.engine_mappings)
        mapper = Mapper(known)
        running = self._runners if known == self._mappings else {}
        kept: dict[str, Runner] = {key: self._runners[key] for key in self._fixed}
        new: dict[str, Source] = {}
        if not start:
            sources, self._engine_gpus = node_sources(config)
            new |= sources
            self._fixed = tuple(sources)
        for engine in config.engines:
            key = repr((engine, config.engine_interval, config.engine_timeout, config.engine_body_limit))
            if key in running:
                kept[key] = running[key]
            else:
                new[key] = engine_source(config, engine, mapper, known, self._engine_gpus)
        for key, runner in self._runners.items():
            if key not in kept:
                runner.stop()
        if self._engine_gpus is not None:
            self._engine_gpus.configured = tuple(_replica(engine) for engine in config.engines)
        self._mappings = known
        self._runners = kept | {key: Runner(source, self._snapshots.changed) for key, source in new.items()}
        self._snapshots.use(self._runners.values())
        if start:
            for key in new:
                self._runners[key].start()

    def _own(self) -> Readings:
        """The daemon about itself."""
        collected = Collected()
        self._about.add(collected, self._server if self._config.web_config_file is not None else None)
        return collected.readings()


def engine_source(
    config: NodeConfig,
    engine: EngineConfig,
    mapper: Mapper,
    known: tuple[Engine, ...],
    gpus: EngineGpus | None = None,
) -> EngineSource:
    """The source of one configured engine. Raises ConfigError where a file that it names cannot be used."""
    identity = Identity(engine.identity(), engine.endpoint, engine.namespace, engine.pod, engine.model)
    context = None
    try:
        file = engine.bearer_token_file
        if file is not None:
            read_secret(file, "token")
        file = engine.ca_file
        if engine.url.startswith("https"):
            context = verifying(engine.ca_file, engine.insecure_skip_verify)
    except (OSError, ValueError) as failure:
        raise ConfigError(f"engine {engine.url}: {file} cannot be used: {failure}") from None
    fetcher = Fetcher(engine.url, config.timeout(engine), config.engine_body_limit, engine.bearer_token_file, context)
    replica = _replica(engine)
    of_engine = (lambda: gpus.of(replica)) if gpus is not None else tuple
    return EngineSource(mapper, known, fetcher, identity, engine.interval or config.engine_interval, of_engine)


def _replica(engine: EngineConfig) -> Replica:
    return Replica(engine.url, engine.namespace, engine.pod)


def _otlp(config: NodeConfig, exposition: Callable[[], bytes]) -> OtlpMetrics | None:
    """What sends metrics by OTLP, if that is asked for. Raises ConfigError where the extra is missing."""
    if config.otlp is None:
        return None
    resource = {"service.name": "palegreen-node", "service.version": VERSION, "host.name": socket.gethostname()}
    return OtlpMetrics(config.otlp, resource, exposition)


def mappings(folder: Path | None) -> tuple[Engine, ...]:
    """Shipped engine mappings and those of a folder, which win by name. Raises ConfigError."""
    if folder is None:
        return engines()
    if not folder.is_dir():
        raise ConfigError(f"engine_mappings: {folder} is not a folder; allowed: a folder of *.yaml files")
    own = [Document.read(path).validate(Engine) for path in sorted(folder.glob("*.yaml"))]
    try:
        return resolve([*engines(), *own])
    except ValueError as refused:
        raise ConfigError(f"engine_mappings: {refused}") from None


def _one_line(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """asyncio's own complaints, such as too many open files, as one line."""
    log.error("node.trouble", cause=context.get("message", ""), exception=repr(context.get("exception")))
