"""What can be made wrong in the demo, on one replica or its GPU, and who is to be told what of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple


class Expected(NamedTuple):
    """What is to come of a fault: one page (critical) or one ticket (warning), to the owner, that names one of
    `causes`. Any of them is right: which is found first is a matter of seconds, and the others are silenced by it."""

    verdict: Literal["slow", "weird", "blind"]
    owner: Literal["platform", "model"]
    causes: tuple[str, ...]
    severity: Literal["critical", "warning"] = "critical"
    of_replica: bool = True
    """Whether the replica is named; a GPU has a node."""
    alone: bool = False
    """Whether nothing else may be told meanwhile: it explains whatever else happens on the node, and Alertmanager tells
    nobody of the end of what is silenced when it ends."""


class Fault(NamedTuple):
    """`options` and `bits` are of the engine, which is started again with them: its command line, and the bits a
    weight that its weights are rounded to. `system` says whether the system prompt is sent. `burst` is so many requests
    at once besides the usual traffic. The GPU is changed only where it is simulated."""

    about: str
    expected: Expected | None = None
    options: tuple[str, ...] = ()
    bits: int | None = None
    system: bool = True
    engine: Literal["", "killed", "stopped"] = ""
    evaluator: Literal["", "killed"] = ""
    gpu: Literal["", "lost", "calm"] = ""
    burst: int = 0

    @property
    def restarts(self) -> bool:
        """Whether the engine has to be started again to bring it about."""
        return bool(self.options) or self.bits is not None

    @property
    def of_engine(self) -> bool:
        """Whether it takes an engine that is the demo's own."""
        return self.restarts or bool(self.engine)


_OTHER = ("response_drift", "failing_check", "failing_canary", "peer_disagreement")
NONE = Fault("as it should be")
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "gpu-lost": Fault(
            "the GPU fell off the bus",
            Expected("blind", "platform", ("gpu_lost",), of_replica=False, alone=True),
            gpu="lost",
        ),
        "other-weights": Fault(
            "weights rounded once more, as after a wrong roll-out", Expected("weird", "model", _OTHER), bits=4
        ),
        "engine-killed": Fault(
            "the engine was killed and is not started again",
            Expected("slow", "platform", ("engine_dead",)),
            engine="killed",
        ),
        "wrong-template": Fault(
            "another model's chat template",
            Expected("weird", "model", _OTHER),
            options=("--chat-template", "llama2"),
        ),
        "engine-hung": Fault(
            "the engine stands still, its port is open",
            Expected("slow", "platform", ("wedged_engine",)),
            engine="stopped",
        ),
        "evaluator-killed": Fault(
            "the evaluator was killed",
            Expected("blind", "platform", ("daemon_down", "evaluator_silent"), "warning"),
            evaluator="killed",
        ),
        "lost-system-prompt": Fault(
            "the system prompt is not sent any more", Expected("weird", "model", _OTHER), system=False
        ),
        "queue": Fault(
            "more requests at once than the engine takes, while the GPU is calm",
            Expected("slow", "platform", ("queue_calm",)),
            gpu="calm",
            burst=12,
        ),
        "none": NONE,
    }
)
"""In the order of `demo --script all`: each gives way to one that is told to others."""
