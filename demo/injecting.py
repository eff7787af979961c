"""Brings faults about in the replicas of the demo that runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from palegreen.demo.engine import EngineError
from palegreen.demo.faults import FAULTS
from palegreen.demo.replica import Replica
from palegreen.demo.started import DemoError


class Faults:
    """Brings about what `palegreen demo fault` asks for: `NAME` or `NAME NUMBER`, the number that of a replica."""

    def __init__(self, replicas: Sequence[Replica], folder: Path) -> None:
        self._replicas, self._folder = replicas, folder
        self._lock = threading.Lock()
        self.said: list[str] = []

    def answer(self, line: str) -> tuple[bool, str]:
        """Do it; whether it was done, and what was, or why not."""
        name, _, which = line.partition(" ")
        fault = FAULTS.get(name)
        if fault is None:
            return False, f"no fault {name!r}; allowed: {', '.join(FAULTS)}"
        if which and not (which.isdecimal() and 1 <= int(which) <= len(self._replicas)):
            return False, f"no replica {which!r}; allowed: 1 to {len(self._replicas)}"
        hit = (
            self._replicas if name == "none" and not which else [self._replicas[int(which or len(self._replicas)) - 1]]
        )
        with self._lock:
            for replica in hit:
                try:
                    refusal = replica.suffer(fault, self._folder)
                except (EngineError, DemoError) as failure:
                    return False, f"what replica {replica.number} needs did not start: {failure}"
                if refusal:
                    return False, refusal
        told = f"replica {', '.join(str(replica.number) for replica in hit)}: {fault.about}"
        self.said.append(f"fault    {told}")
        return True, told
