"""The watch as the scorer has it: with the configuration's baseline, segments and state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from palegreen.evaluators.baseline.manifest import Manifest
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.drift.model import Model
from palegreen.evaluators.drift.replica import Markers
from palegreen.evaluators.drift.state import Keeper, place
from palegreen.evaluators.drift.watch import Watch, no_markers
from palegreen.evaluators.embed.parts import VectorsOf
from palegreen.evaluators.store.scored import Scored
from palegreen.runtime.exposition import Collected

log = structlog.get_logger()


class Follower:
    """Compares what is scored with the baseline in force, and keeps its state."""

    def __init__(self, config: EvaluateConfig, folder: Path, manifest: Manifest, markers: Markers) -> None:
        segments = config.drift.segments.named()
        self.watch = Watch(Model.load(folder, manifest), segments, markers)
        self._keeper = Keeper(self.watch, place(config.drift, config.store_path))
        self._config = config

    @classmethod
    def of(
        cls, config: EvaluateConfig, folder: Path, manifest: Manifest, markers: Markers = no_markers
    ) -> Follower | None:
        """For a baseline that was loaded; None, and a line in the log, if it has only a manifest.

        Raises ConfigError, one line, if its arrays cannot be used.
        """
        if not manifest.arrays or manifest.run_length is None:
            log.warning("drift.off", baseline=manifest.id, cause="the baseline was not calibrated")
            return None
        return cls(config, folder, manifest, markers)

    @property
    def about(self) -> str:
        """The baseline, for the log and the status page."""
        return self.watch.model.manifest.id

    def follow(self, scored: Sequence[Scored], vectors: Sequence[VectorsOf]) -> None:
        """Take a batch. Nothing is raised: what is scored is counted and stored whatever becomes of this."""
        try:
            self.watch.observe(scored, vectors)
        except Exception:
            log.exception("drift.failed", samples=len(scored), effect="they are not compared")
        self._keeper.keep()

    def alarmed(self, replica: str) -> bool:
        """Whether an alarm that pages is up on a replica."""
        found = self.watch.replicas.get(replica)
        return found is not None and any(alarm.pages for alarm in found.alarms.values())

    def show(self, collected: Collected) -> None:
        """Add what is published."""
        self.watch.show(collected, self._config.namespace, self._config.pod)

    def close(self) -> None:
        """Write what is held."""
        self._keeper.keep(now=True)
