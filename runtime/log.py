"""Logs: one line an event, logfmt or JSON, to standard error."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

Format = Literal["logfmt", "json"]
Level = Literal["debug", "info", "warning", "error"]


def configure(level: Level = "info", fmt: Format = "logfmt") -> None:
    """Send every log of the process, libraries' too, through one formatter; may be called again."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _one_line_exception,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"], bool_as_flag=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _one_line_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A traceback as one field: a log that is read line by line must not be broken by it."""
    info = event.pop("exc_info", None)
    if info:
        info = sys.exc_info() if info is True else info
        event["exception"] = "".join(traceback.format_exception(*info)).strip()
    return event
