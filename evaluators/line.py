"""The line between the evaluator and its child processes, as seen from a child.

The child gets a frame on standard input, its brief, later further ones, and sends frames on what was standard output,
from a thread of their own: whoever reports never waits for the parent. When standard input ends, so does the child.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from threading import Condition, Thread
from typing import Any, Literal

import orjson

from palegreen.evaluators.config import EvaluateConfig
from palegreen.inprocess.frame import Decoder, encode
from palegreen.runtime.exposition import Readings
from palegreen.runtime.log import configure

EXIT_REFUSED = 3
_PATIENCE = 2.0  # seconds
_MOST_TOLD = 256  # frames that wait to be asked for


class Line:
    """What a child tells its parent, and the other way. `known` is what the parent keeps from one child to the next."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # whatever prints must not end up between frames
        self._waiting: deque[bytes] = deque()
        self._latest = b""  # readings: an older one that has not been sent is of no use any more
        self._work = Condition()
        self._idle = True
        self._told: deque[dict[str, Any]] = deque(maxlen=_MOST_TOLD)
        self._heard = Decoder()
        self.config, self.queue, self.key, self.known = self._brief()
        configure(self.config.log_level, self.config.log_format)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Thread(target=self._watch, name="lifeline", daemon=True).start()
        Thread(target=self._write, name="reports", daemon=True).start()

    def starting(self, what: str) -> None:
        """Something at the start takes a while: silence is no fault now."""
        self._send(encode({"kind": "starting", "what": what}))

    def ready(self, **facts: Any) -> None:
        """Work begins; `facts` are for the parent's log."""
        self._send(encode({"kind": "ready", **facts}))

    def readings(self, readings: Readings) -> None:
        """What is to be shown."""
        body = orjson.dumps({"lines": dict(readings.lines), "openmetrics": dict(readings.openmetrics)})
        with self._work:
            self._latest = encode({"kind": "readings"}, [body])
            self._work.notify_all()

    def tell(self, kind: str, **facts: Any) -> None:
        """Something for the parent to act on."""
        self._send(encode({"kind": kind, **facts}))

    def told(self) -> list[dict[str, Any]]:
        """What the parent has told since this was asked last, in order."""
        told = []
        while self._told:
            told.append(self._told.popleft())
        return told

    def done(self) -> None:
        """All that there was to do is done."""
        self._send(encode({"kind": "done"}))

    def refuse(self, why: str, blame: Literal["config", "address"]) -> int:
        """It cannot begin, for a reason that a person must mend; the exit status."""
        self._send(encode({"kind": "refused", "why": why, "blame": blame}))
        self.close()
        return EXIT_REFUSED

    def close(self) -> None:
        """Give what was reported a moment to be sent."""
        with self._work:
            self._work.wait_for(lambda: self._idle and not self._waiting and not self._latest, _PATIENCE)

    def _brief(self) -> tuple[EvaluateConfig, str, bytes, dict[str, Any]]:
        while data := os.read(0, 65536):
            for header, parts in self._heard.feed(data):
                config = EvaluateConfig.model_validate_json(parts[0])
                return config, header["queue"], parts[1], header.get("known", {})
        sys.exit("this is a child process of palegreen evaluate and gets its brief from it")

    def _send(self, frame: bytes) -> None:
        with self._work:
            self._waiting.append(frame)
            self._work.notify_all()

    def _write(self) -> None:
        while True:
            with self._work:
                self._idle = True
                self._work.notify_all()
                self._work.wait_for(lambda: self._waiting or self._latest)
                frame, self._idle = self._waiting.popleft() if self._waiting else self._latest, False
                if frame is self._latest:
                    self._latest = b""
            try:
                while frame:
                    frame = frame[os.write(self._out, frame) :]
            except OSError:  # the parent is gone; the lifeline ends this
                return

    def _watch(self) -> None:
        data = b""  # what came with the brief is in the decoder
        while True:
            self._told += [header for header, _ in self._heard.feed(data)]
            data = os.read(0, 65536)
            if not data:
                break
        os.kill(os.getpid(), signal.SIGTERM)
