"""From a ratio to an alarm: raised once per excursion, and released only when the excursion is over."""

from __future__ import annotations

from enum import Enum

import numpy as np

from palegreen.evaluators.detectors.mewma import State

RELEASE = 0.5
"""Ratio below which an alarm is on its way out."""
HOLD = 50
"""Samples in succession for which it has to be."""
WARM_UP = 16
"""Samples after a start in which nothing is raised: an average of fewer says little."""
COOL_DOWN = 50
"""Samples after a release in which nothing is raised."""


class Turn(Enum):
    """What a sample did to an alarm."""

    RAISED = "raised"
    RELEASED = "released"


class Latch:
    """The alarm of one detector, or of several combined."""

    def __init__(self) -> None:
        self._raised, self._quiet, self._mute = 0, 0, WARM_UP

    @property
    def raised(self) -> bool:
        """Whether the alarm is up."""
        return bool(self._raised)

    def update(self, ratio: float) -> Turn | None:
        """Take the ratio after a sample; what changed, if anything did."""
        if self._raised:
            self._quiet = self._quiet + 1 if ratio < RELEASE else 0
            if self._quiet < HOLD:
                return None
            self._raised, self._quiet, self._mute = 0, 0, COOL_DOWN
            return Turn.RELEASED
        if self._mute:
            self._mute -= 1
            return None
        if ratio <= 1:
            return None
        self._raised = 1
        return Turn.RAISED

    def reset(self) -> None:
        """As after a start: not raised, and warming up."""
        self._raised, self._quiet, self._mute = 0, 0, WARM_UP

    def state(self) -> State:
        """To go on from after a restart."""
        return {"latch": np.array([self._raised, self._quiet, self._mute])}

    def restore(self, state: State) -> None:
        """Go on from a state. Raises ValueError, one line, if it is not one of a latch."""
        held = state.get("latch", np.empty(0))
        if held.shape != (3,) or not ((held >= 0) & (held <= (1, HOLD, max(WARM_UP, COOL_DOWN)))).all():
            raise ValueError("the state of a latch is not three counts")
        self._raised, self._quiet, self._mute = map(int, held)
