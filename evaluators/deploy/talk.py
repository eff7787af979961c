"""What the scorer and its parent tell each other of deploys: changes of markers one way, declared deploys the other."""

from __future__ import annotations

import time

from palegreen.evaluators.deploy.markers import Markers
from palegreen.evaluators.line import Line

_KEEP_EVERY = (1.0, 60.0)  # seconds between two times that the markers are kept by the parent, doubling


class Teller:
    """The scorer's side of it. `markers` go on where an earlier scorer's stopped."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._kept, self._every = time.monotonic(), _KEEP_EVERY[0]
        self.markers = Markers(line.known.get("markers"))
        for deploy in line.known.get("deploys", ()):
            self.markers.deploy(deploy["at"], deploy["cause"], deploy["replica"])

    def talk(self) -> None:
        """Tell what has changed, and hear what was declared."""
        for told in self._line.told():
            if told["kind"] == "deploy":
                self.markers.deploy(told["at"], told["cause"], told["replica"])
        changes = self.markers.untold()
        for change in changes:
            self._line.tell("marker", **change._asdict())
        if changes or time.monotonic() - self._kept >= self._every:
            self._keep()
            self._every = min(2 * self._every, _KEEP_EVERY[1])

    def close(self) -> None:
        """The scorer ends: have the markers kept for the next one."""
        self.talk()
        self._keep()

    def _keep(self) -> None:
        self._kept = time.monotonic()
        self._line.tell("markers", state=self.markers.state())
