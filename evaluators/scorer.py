"""The scorer process: fetches what the taps gathered, batch by batch, and works it off."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from palegreen.evaluators.deploy.talk import Teller
from palegreen.evaluators.embed.embedder import EmbedderError
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.line import Line
from palegreen.evaluators.pipeline import Pipeline
from palegreen.inprocess.frame import Decoder, FrameError, encode
from palegreen.runtime.yamlfile import ConfigError

log = structlog.get_logger()

_RECORDS = 32  # of a batch: long enough to embed texts of like length together, short enough to report in between
_BYTES = 8 << 20
_REPORT_EVERY = 1.0
_AGAIN = 0.2  # seconds until the tap process is looked for again
_HEADROOM = 2  # times the memory limit that it can take at most, between two looks of the parent
_LEAST_HEADROOM = 512 << 20


class Scorer:
    """Asks for batches until it is told to stop, and reports once a second whatever it does."""

    def __init__(self, pipeline: Pipeline, line: Line, teller: Teller) -> None:
        self._pipeline = pipeline
        self._line = line
        self._teller = teller
        self._reported = 0.0
        self._stopped = False

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stopped = True

    def serve(self, queue: Path) -> None:
        """Work until `stop`."""
        while not self._stopped:
            self._report()
            try:
                with socket.socket(socket.AF_UNIX) as desk:
                    desk.connect(str(queue))
                    self._work(desk)
            except (OSError, FrameError) as failure:
                if not self._stopped:
                    log.debug("scorer.waiting", cause=str(failure))
                    time.sleep(_AGAIN)
        self._pipeline.close()
        self._teller.close()
        self._line.readings(self._pipeline.readings())
        self._line.close()

    def _work(self, desk: socket.socket) -> None:
        desk.settimeout(_REPORT_EVERY)
        decoder = Decoder()
        while not self._stopped:
            desk.sendall(encode({"records": _RECORDS, "bytes": _BYTES}))
            batch = list(self._received(desk, decoder))
            self._pipeline.score(batch, self._report)
            self._report()

    def _received(self, desk: socket.socket, decoder: Decoder) -> Iterator[Envelope]:
        while True:
            try:
                data = desk.recv(1 << 18)
            except TimeoutError:
                self._report()
                if self._stopped:
                    raise ConnectionAbortedError from None
                continue
            if not data:
                raise ConnectionResetError
            for header, parts in decoder.feed(data):
                if "end" in header:
                    return
                yield Envelope(header, parts)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            self._teller.talk()
            self._line.readings(self._pipeline.readings())


def main() -> int:
    """Run as a child of `palegreen evaluate`; the exit status."""
    line = Line()
    with contextlib.suppress(OSError):  # where memory is short, the kernel takes this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = max(line.config.scorer_memory_limit * _HEADROOM, _LEAST_HEADROOM)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    trial = "--trial" in sys.argv  # of a configuration: whether it would be refused
    unkept = line.config.drift.model_copy(update={"state": "none"})
    config = line.config.model_copy(update={"store": "none", "otlp": None, "drift": unkept}) if trial else line.config
    teller = Teller(line)
    try:
        pipeline = Pipeline(config, line.key, line.starting, teller.markers)
    except (ConfigError, EmbedderError) as refused:
        return line.refuse(str(refused), "config")
    if trial:
        return 0
    scorer = Scorer(pipeline, line, teller)
    signal.signal(signal.SIGTERM, lambda *_: scorer.stop())
    line.ready(**pipeline.about)
    scorer.serve(Path(line.queue))
    return 0


if __name__ == "__main__":
    sys.exit(main())
