"""A baseline's manifest, `DIR/manifest.json`: what it is of, and what it says of scalar channels."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from palegreen.evaluators.embed.embedder import Embedder
from palegreen.runtime.settings import Section
from palegreen.runtime.yamlfile import ConfigError

FORMAT = 1
_MOST = 4 << 20


class Pinned(Section):
    """The embedder whose geometry the baseline is in."""

    name: str
    digest: str


class Manifest(Section):
    """What a baseline folder says of itself. `quantiles` are those of each channel, `{"0.5": value, ...}`."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer version may say more

    format: int
    embedder: Pinned | None = None
    samples: int = Field(ge=0)
    created: float = Field(ge=0, description="epoch seconds")
    quantiles: dict[str, dict[str, float]] = Field({})


def load(folder: Path) -> Manifest:
    """The manifest of a baseline. Raises ConfigError, one line."""
    path = folder / "manifest.json"
    try:
        with path.open("rb") as file:
            manifest = Manifest.model_validate_json(file.read(_MOST))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; allowed: the folder of a baseline") from None
    except ValidationError as refused:
        first = refused.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from None
    if manifest.format != FORMAT:
        raise ConfigError(f"{path}: format: got {manifest.format}; allowed: {FORMAT}")
    return manifest


def mismatch(manifest: Manifest, embedder: Embedder | None) -> str:
    """Why samples seen through this embedder cannot be compared with the baseline; empty if they can."""
    if manifest.embedder is None or (embedder is not None and manifest.embedder.digest == embedder.digest):
        return ""
    mine = f"{embedder.name} ({embedder.digest[:12]})" if embedder is not None else "none"
    theirs = f"{manifest.embedder.name} ({manifest.embedder.digest[:12]})"
    return f"the baseline is of the embedder {theirs}, this evaluator's is {mine}; fit one with this embedder"
