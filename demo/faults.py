"""What can be made wrong in the demo, on one replica, without anything that a dashboard shows turning red."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Fault(NamedTuple):
    """`options` and `bits` are of the engine, which is started again with them: its command line, and the bits a
    weight that its weights are rounded to. `system` says whether the system prompt is sent."""

    about: str
    options: tuple[str, ...] = ()
    bits: int | None = None
    system: bool = True

    @property
    def restarts(self) -> bool:
        """Whether the engine has to be started again."""
        return bool(self.options) or self.bits is not None


NONE = Fault("as it should be")
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "other-weights": Fault("weights rounded once more, as after a wrong roll-out", bits=4),
        "wrong-template": Fault("another model's chat template", options=("--chat-template", "llama2")),
        "lost-system-prompt": Fault("the system prompt is not sent any more", system=False),
        "none": NONE,
    }
)
