"""One signal on its way out: the SDK's exporter, what became of each batch, and at most one line a minute of it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Any, Literal

import structlog

from palegreen.runtime.otlp.config import OtlpExportConfig
from palegreen.runtime.yamlfile import ConfigError

log = structlog.get_logger()

Signal = Literal["metrics", "events"]
_PATHS: Mapping[Signal, str] = {"metrics": "/v1/metrics", "events": "/v1/logs"}
_TIMEOUT = 10  # seconds that one batch may take, repetitions included
_SAY_EVERY = 60.0  # seconds between two lines about failures


class Exporting:
    """Sends batches of one signal. Raises ConfigError, one line, without the extra or with unusable headers."""

    def __init__(self, config: OtlpExportConfig, signal: Signal) -> None:
        self._exporter = _exporter(config, signal)
        self._signal = signal
        self._endpoint = config.endpoint
        self._said_at = float("-inf")
        self._since = 0
        self._last_words = _LastWords.listening()
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def send(self, batch: Any, records: int) -> None:
        """Send one batch, however long it takes, up to ten seconds."""
        try:
            sent = self._exporter.export(batch).name == "SUCCESS"
        except Exception as failure:  # noqa: BLE001 - the SDK's exporters are not known to raise, and must not end us
            self.failed(records, repr(failure))
            return
        if sent:
            with self._lock:
                self._counts["ok"] += records
        else:
            self.failed(records, self._last_words.text or "no reason is given")

    def failed(self, records: int, cause: str) -> None:
        """Count records that were not sent; at most once a minute a line tells how many and why the latest."""
        with self._lock:
            self._counts["failed"] += records
            self._since += records
            now = time.monotonic()
            if now < self._said_at + _SAY_EVERY:
                return
            self._said_at, lost, self._since = now, self._since, 0
        log.warning("otlp.failed", signal=self._signal, records=lost, endpoint=self._endpoint, cause=cause)

    def counts(self) -> dict[str, int]:
        """Records by result, `ok` or `failed`."""
        with self._lock:
            return dict(self._counts)

    def close(self) -> None:
        """Give up what is under way and let go of the connection."""
        self._exporter.shutdown()


class _LastWords(logging.Handler):
    """Takes the place of the SDK's own lines, one an attempt: the last one tells the cause."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        if record.levelno >= logging.WARNING:
            self.text = record.getMessage()

    @classmethod
    def listening(cls) -> _LastWords:
        """The one of this process."""
        logger = logging.getLogger("opentelemetry")
        logger.propagate = False
        for handler in logger.handlers:
            if isinstance(handler, cls):
                return handler
        handler = cls()
        logger.addHandler(handler)
        return handler


def _exporter(config: OtlpExportConfig, signal: Signal) -> Any:
    """The SDK's exporter for protocol and signal."""
    headers = config.headers()
    try:
        if config.protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics

            grpc = GrpcMetrics if signal == "metrics" else GrpcLogs
            return grpc(endpoint=config.endpoint, headers=tuple(headers.items()), timeout=_TIMEOUT)
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
    except ImportError as missing:
        raise ConfigError(f'otlp: {missing}; install it with pip install "palegreen[otel]"') from None
    path = _PATHS[signal]
    endpoint = config.endpoint.rstrip("/")
    url = endpoint if endpoint.endswith(path) else endpoint + path
    http = HttpMetrics if signal == "metrics" else HttpLogs
    return http(endpoint=url, headers=headers, timeout=_TIMEOUT)
