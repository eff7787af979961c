"""A baseline's manifest, `DIR/manifest.json`: what it is of, and what it says of scalar channels."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from palegreen.evaluators.embed.embedder import Embedder
from palegreen.runtime.exposition import Collected
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
    evaluator_version: str = ""
    samples: int = Field(ge=0)
    created: float = Field(ge=0, description="epoch seconds")
    quantiles: dict[str, dict[str, float]] = Field({})


class Baseline:
    """A baseline as the evaluator uses it; its name is that of its folder."""

    def __init__(self, name: str, manifest: Manifest) -> None:
        self.name = name
        self.manifest = manifest

    @classmethod
    def load(cls, folder: Path) -> Baseline:
        """The baseline of a folder. Raises ConfigError, one line."""
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
        return cls(folder.resolve().name, manifest)

    def mismatch(self, embedder: Embedder | None) -> str:
        """Why samples seen through this embedder cannot be compared with the baseline; empty if they can."""
        pinned = self.manifest.embedder
        if pinned is None or (embedder is not None and pinned.digest == embedder.digest):
            return ""
        mine = f"{embedder.name} ({embedder.digest[:12]})" if embedder is not None else "none"
        theirs = f"{pinned.name} ({pinned.digest[:12]})"
        return f"the baseline is of the embedder {theirs}, this evaluator's is {mine}; fit one with this embedder"

    def show(self, collected: Collected, mismatched: bool, labels: tuple[str, ...]) -> None:
        """Add what is published of a baseline."""
        manifest = self.manifest
        embedder = manifest.embedder.name if manifest.embedder is not None else ""
        collected.add("palegreen_baseline_info", 1, *labels, self.name, embedder, manifest.evaluator_version)
        collected.add("palegreen_baseline_samples", manifest.samples, *labels)
        collected.add("palegreen_baseline_created_timestamp_seconds", manifest.created, *labels)
        collected.add("palegreen_baseline_mismatch", mismatched, *labels)
