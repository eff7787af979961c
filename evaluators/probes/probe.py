"""What a probe is."""

from __future__ import annotations

from threading import Event
from typing import Protocol

from palegreen.runtime.exposition import Collected


class Probe(Protocol):
    """Something that is asked again and again, in a thread of its own; `interval` is seconds between two rounds."""

    name: str
    interval: float

    def run(self, stopped: Event) -> None:
        """One round. Raises nothing that is to be expected, and ends soon once `stopped` is set."""
        ...

    def show(self, collected: Collected) -> None:
        """Add its series. Called from another thread."""
        ...
