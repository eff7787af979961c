"""The line between the evaluator and its child processes, as seen from a child.

The child gets one frame on standard input, its brief, and sends frames on what was standard output. Nothing here ever
waits for the parent: a report that does not fit into the pipe is left out. When standard input ends, so does the child.
"""

from __future__ import annotations

import os
import signal
import sys
from threading import Thread
from typing import Any, Literal

import orjson

from palegreen.evaluators.config import EvaluateConfig
from palegreen.inprocess.frame import Decoder, encode
from palegreen.runtime.exposition import Readings
from palegreen.runtime.log import configure

EXIT_REFUSED = 3


class Line:
    """What a child tells its parent."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # whatever prints must not end up between frames
        os.set_blocking(self._out, False)
        self._pending = b""
        self.config, self.queue, self.key = self._brief()
        configure(self.config.log_level, self.config.log_format)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Thread(target=self._watch, name="lifeline", daemon=True).start()

    def starting(self, what: str) -> None:
        """Something at the start takes a while: silence is no fault now."""
        self._send(encode({"kind": "starting", "what": what}))

    def ready(self, **facts: Any) -> None:
        """Work begins; `facts` are for the parent's log."""
        self._send(encode({"kind": "ready", **facts}))

    def readings(self, readings: Readings) -> None:
        """What is to be shown."""
        body = orjson.dumps({"lines": dict(readings.lines), "openmetrics": dict(readings.openmetrics)})
        self._send(encode({"kind": "readings"}, [body]))

    def done(self) -> None:
        """All that there was to do is done."""
        self._send(encode({"kind": "done"}))

    def refuse(self, why: str, blame: Literal["config", "address"]) -> int:
        """It cannot begin, for a reason that a person must mend; the exit status."""
        os.set_blocking(self._out, True)
        self._send(encode({"kind": "refused", "why": why, "blame": blame}))
        return EXIT_REFUSED

    def _brief(self) -> tuple[EvaluateConfig, str, bytes]:
        decoder = Decoder()
        while data := os.read(0, 65536):
            for header, parts in decoder.feed(data):
                return EvaluateConfig.model_validate_json(parts[0]), header["queue"], parts[1]
        sys.exit("this is a child process of palegreen evaluate and gets its brief from it")

    def _send(self, frame: bytes) -> None:
        self._flush()
        if not self._pending:
            self._pending = frame
            self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._out, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:  # the parent is gone; the lifeline ends this
            self._pending = b""

    def _watch(self) -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
