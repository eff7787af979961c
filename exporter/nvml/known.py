"""Every GPU that was ever attached, by its UUID: indices shift when a GPU leaves, a UUID stays with its GPU."""

from __future__ import annotations

from palegreen.exporter.nvml.gpu import Identity
from palegreen.exporter.nvml.totals import Totals


class Known:
    """The latest index of each GPU, and what has added up about it, whichever worker serves it."""

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}
        self._totals: dict[str, Totals] = {}

    def attached(self, identity: Identity) -> None:
        """This GPU has this index from now on."""
        if identity.uuid:
            self._identities[identity.uuid] = identity

    def identities(self) -> tuple[Identity, ...]:
        """All GPUs with a UUID, each by the index it had last."""
        return tuple(self._identities.copy().values())

    def totals(self, identity: Identity) -> Totals:
        """What has added up about a GPU; by its index while its UUID is not known."""
        return self._totals.setdefault(identity.uuid or identity.gpu, Totals())
