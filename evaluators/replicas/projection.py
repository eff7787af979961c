"""A fixed projection of embeddings to 32 decorrelated features, the same on every replica.

It comes with the embedder and not from a baseline, so that replicas which never heard of each other count the same
features. `fit` made those that are shipped; `assets/README.md` says of what.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.embed.embedder import Embedder
from palegreen.evaluators.embed.files import verified
from palegreen.runtime.yamlfile import ConfigError

DIMENSIONS = 32
CLIP = 5.0
"""Features are cut to -CLIP..CLIP: a single sample moves a mean by no more than that."""
SHIPPED = {
    "minilm": "48f30014f0e3533c5af3a446ee2bcd2925c0ec2b0fb73157bae555e7ad0927c3",
    "static": "0ddb4690264bc28cf7e4c3623bdc2f102801918d898b3f1759c7be1c854dcbcc",
}
"""sha256 of the projection of each embedder that has one."""
_ASSETS = Path(__file__).parent / "assets"
_SHOWN = 16  # hex digits of the hash in the label


class Projection:
    """A projection from its file (npz: mean (n,), axes (32, n), scales (32,), embedder: its digest).

    `basis` is the hash of the file: features of two replicas compare only if it is the same. Raises ValueError if the
    file is none.
    """

    def __init__(self, content: bytes) -> None:
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                mean, axes, scales = (np.asarray(arrays[name], np.float64) for name in ("mean", "axes", "scales"))
                self.embedder = str(arrays["embedder"])
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as broken:
            raise ValueError("it is no projection: mean, axes, scales and embedder in an npz file") from broken
        if axes.shape != (DIMENSIONS, mean.size) or scales.shape != (DIMENSIONS,) or not (scales > 0).all():
            raise ValueError(f"its axes are {axes.shape}, not ({DIMENSIONS}, {mean.size}) with as many scales above 0")
        self.basis = hashlib.sha256(content).hexdigest()[:_SHOWN]
        self._axes = axes / scales[:, np.newaxis]
        self._origin = self._axes @ mean

    def __call__(self, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features of one unit vector, shape (32,), in about standard deviations of public text."""
        features: NDArray[np.float64] = self._axes @ vector - self._origin
        return np.clip(features, -CLIP, CLIP)


def projection(embedder: Embedder, file: Path | None = None) -> Projection | None:
    """The projection of an embedder: that of `file`, else the one shipped, else None.

    Raises ConfigError for a file that is none or was fitted for another embedder, EmbedderError for a broken package.
    """
    if file is None:
        if embedder.name not in SHIPPED:
            return None
        found = Projection(
            verified(_ASSETS / f"{embedder.name}.npz", SHIPPED[embedder.name], "install palegreen again")
        )
    else:
        try:
            found = Projection(file.read_bytes())
        except OSError as failure:
            raise ConfigError(f"projection: {file} cannot be read: {failure.strerror}") from failure
        except ValueError as broken:
            raise ConfigError(f"projection: {file}: {broken}") from broken
    if found.embedder != embedder.digest:
        raise ConfigError(
            f"projection: {file or embedder.name} was fitted for the embedder {found.embedder[:_SHOWN]}, not for "
            f"{embedder.name} ({embedder.digest[:_SHOWN]}); fit one with python -m palegreen.evaluators.replicas.fit"
        )
    return found
