"""What both daemons publish of themselves: version, reloads of their configuration, OTLP sent out, the process."""

from __future__ import annotations

import platform
import time

from prometheus_client import CollectorRegistry, ProcessCollector

from palegreen.runtime.exposition import Collected
from palegreen.runtime.otlp.metrics import OtlpMetrics
from palegreen.runtime.web import WebServer


class OwnMetrics:
    """The state behind them; the configuration read at the start counts as reloaded."""

    def __init__(self, version: str, otlp: OtlpMetrics | None) -> None:
        self._version = version
        self._otlp = otlp
        self._process = ProcessCollector(registry=CollectorRegistry())
        self._reloaded, self._reloaded_at = True, time.time()

    def reloaded(self) -> None:
        """The configuration in force is the one in the file, as of now."""
        self._reloaded, self._reloaded_at = True, time.time()

    def refused(self) -> None:
        """The configuration in the file is not the one in force."""
        self._reloaded = False

    def add(self, collected: Collected, server: WebServer | None) -> None:
        """Add everything; `server` is one with a web configuration file, if there is such."""
        collected.add("palegreen_build_info", 1, self._version, platform.python_version())
        collected.add("palegreen_config_last_reload_successful", self._reloaded)
        collected.add("palegreen_config_last_reload_success_timestamp_seconds", self._reloaded_at)
        if server is not None:
            collected.add("palegreen_web_config_last_reload_successful", server.last_reload_successful)
        for result, count in self._otlp.counts().items() if self._otlp is not None else ():
            collected.add("palegreen_otlp_exported_total", count, "metrics", result)
        for family in self._process.collect():
            for sample in family.samples:
                collected.add(sample.name, sample.value)
