"""The probe process: every configured probe, each in a thread of its own, so that one that hangs delays no other."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.deploy.fingerprint import ModelFingerprint
from palegreen.evaluators.line import Line
from palegreen.evaluators.probes import retrieval
from palegreen.evaluators.probes.lazily import Lazily
from palegreen.evaluators.probes.plan import canaries
from palegreen.evaluators.probes.probe import Probe
from palegreen.runtime.exposition import Collected, Readings
from palegreen.runtime.tally import Tally
from palegreen.runtime.yamlfile import ConfigError

log = structlog.get_logger()

_REPORT_EVERY = 1.0
_PATIENCE = 1.0  # seconds that rounds under way get at the end
_JITTER = 0.1  # share of an interval by which a round may come earlier or later, so that replicas do not ask in step


def probes(config: EvaluateConfig, embed: Lazily, queue: Path) -> list[Probe]:
    """Every probe that is configured. Raises ConfigError, one line."""
    return [
        *canaries(config, embed.vector, queue),
        *([ModelFingerprint(config)] if config.upstream else []),
        *retrieval.probes(config),
    ]


class Probes:
    """Runs probes until `stop`, and reports once a second whatever they do."""

    def __init__(self, running: Sequence[Probe], line: Line) -> None:
        self._probes = running
        self._line = line
        self._stopped = Event()
        self._tally = Tally()
        for probe in running:
            for result in ("done", "failed"):
                self._tally.count("palegreen_probe_rounds_total", probe.name, result, by=0)

    def stop(self) -> None:
        """End soon."""
        self._stopped.set()

    def serve(self) -> None:
        """Work until `stop`."""
        threads = [Thread(target=self._keep, args=(probe,), name=probe.name, daemon=True) for probe in self._probes]
        for thread in threads:
            thread.start()
        while not self._stopped.wait(_REPORT_EVERY):
            self._line.readings(self._readings())
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._line.readings(self._readings())
        self._line.close()

    def _keep(self, probe: Probe) -> None:
        draw = random.Random()  # noqa: S311 - when a round comes is no secret
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                probe.run(self._stopped)
            except Exception:  # one round must not end the probe
                log.exception("probe.failed", probe=probe.name)
                self._tally.count("palegreen_probe_rounds_total", probe.name, "failed")
            else:
                self._tally.count("palegreen_probe_rounds_total", probe.name, "done")
            interval = probe.interval * draw.uniform(1 - _JITTER, 1 + _JITTER)
            self._stopped.wait(max(0.0, interval - (time.monotonic() - began)))

    def _readings(self) -> Readings:
        collected = Collected()
        collected.include(self._tally.readings())
        for probe in self._probes:
            try:
                own = Collected()
                probe.show(own)
            except Exception as defect:  # noqa: BLE001 - the others' series go on
                log.error("probe.not_shown", probe=probe.name, cause=type(defect).__name__)
            else:
                collected.include(own.readings())
        return collected.readings()


def main() -> int:
    """Run as a child of `palegreen evaluate`; the exit status."""
    line = Line()
    with contextlib.suppress(OSError):  # where memory is short, the kernel takes this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    config = line.config
    try:
        running = probes(config, Lazily(config.embedder, config.scorer_threads), Path(line.queue))
    except ConfigError as refused:
        return line.refuse(str(refused), "config")
    if "--trial" in sys.argv:  # of a configuration: whether it would be refused
        return 0
    process = Probes(running, line)
    signal.signal(signal.SIGTERM, lambda *_: process.stop())
    line.ready(probes=" ".join(probe.name for probe in running))
    process.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
