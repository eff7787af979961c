"""A loaded baseline, ready to compare with: shared by all replicas."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.baseline.features import Features, Floats
from palegreen.evaluators.baseline.manifest import Manifest
from palegreen.evaluators.baseline.registry import arrays_of
from palegreen.evaluators.baseline.segments import Named
from palegreen.evaluators.detectors.mewma import Calibration
from palegreen.evaluators.drift.alarm import Channel
from palegreen.evaluators.drift.evidence import Rows
from palegreen.runtime.yamlfile import ConfigError

AGAIN = "fit the baseline again"


class Model:
    """What of a baseline the detectors need. `segments` are those that it has limits for."""

    def __init__(self, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> None:
        if manifest.run_length is None:
            raise KeyError("run_length")
        self.manifest = manifest
        self.features = Features(arrays)
        self.calibrations: dict[Channel, Calibration] = {"response": _calibration(arrays, "response")}
        if self.features.prompt_dimensions:
            self.calibrations["prompt"] = _calibration(arrays, "prompt")
        self.rows = Rows(manifest, self.features.clusters, manifest.run_length.shares["checks"])
        self.segments: tuple[Named, ...] = tuple(_named(segment) for segment in sorted(manifest.segments))

    @classmethod
    def load(cls, folder: Path, manifest: Manifest) -> Model:
        """Of a baseline's folder. Raises ConfigError, one line."""
        arrays = arrays_of(folder)
        try:
            return cls(manifest, arrays)
        except KeyError as missing:
            raise ConfigError(f"{folder}: has no {missing.args[0]}: {AGAIN}") from None
        except (ValueError, IndexError, TypeError) as refused:
            raise ConfigError(f"{folder}: {' '.join(str(refused).split())}: {AGAIN}") from None

    @property
    def known(self) -> int:
        """Clusters of prompts of which something is known, from 0 on."""
        return len(self.calibrations["response"].conditional.centre)

    @property
    def unasked(self) -> bool:
        """Whether something is known of samples without a prompt, which are the last cluster."""
        return self.known == self.features.clusters

    def vectors(self, channel: Channel, whitened: Floats, clusters: NDArray[np.intp]) -> NDArray[np.float64]:
        """Whitened vectors (n, d) centred and scaled by cluster, as the detector takes them; for looking back."""
        fitted = self.calibrations[channel].conditional
        dimensions = self.dimensions(channel)
        return (whitened[:, :dimensions] - fitted.centre[clusters]) / fitted.scale[clusters]

    def dimensions(self, channel: Channel) -> int:
        """Of the vectors that a channel's detector looks at."""
        return self.calibrations[channel].plan.dimensions

    @property
    def signature(self) -> str:
        """Of what a detector's state is of: this baseline, in this layout."""
        layout = "/".join(f"{row.segment} {row.check} {row.stream}" for row in self.rows.rows)
        return hashlib.sha256(f"{self.manifest.id} {layout}".encode()).hexdigest()[:16]


def _calibration(arrays: Mapping[str, NDArray[Any]], channel: str) -> Calibration:
    prefix = f"calibration.{channel}."
    kept = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    try:
        return Calibration.of(kept)
    except KeyError as missing:
        raise KeyError(f"{prefix}{missing.args[0]}") from None


def _named(segment: str) -> Named:
    kind, _, value = segment.partition("=")
    return kind, value
