"""A baseline's manifest, `DIR/manifest.json`: what it is of, how it was made, and what it says of scalar channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from palegreen.evaluators.baseline.runlength import RunLength
from palegreen.evaluators.contents import identity, problem
from palegreen.evaluators.embed.embedder import Embedder
from palegreen.runtime.exposition import Collected
from palegreen.runtime.settings import Section
from palegreen.runtime.yamlfile import ConfigError

FORMAT = 1
NAME = "manifest.json"
ARRAYS = "arrays.npz"
CURRENT = "current"
_MOST = 16 << 20


class Pinned(Section):
    """The embedder whose geometry the baseline is in."""

    name: str
    digest: str
    dimensions: int = 0


class Counts(Section):
    """What a check said in the baseline, by cluster of prompts; the last cluster is of samples without a prompt.

    `judged` passed or failed, `failures` of them failed; `scored` have a score.
    """

    judged: list[int]
    failures: list[int]
    scored: list[int]
    score_mean: list[float]
    score_variance: list[float]


class Normal(Section):
    """What may be in one part of the traffic, for each check a value by cluster of prompts.

    `limit` is what the rate of failures may be, `loss_limit` what the mean of how far scores, and scalar channels, lie
    beyond the usual may be, see `scalars`.
    """

    samples: int = 0
    limit: dict[str, list[float]] = Field({})
    loss_limit: dict[str, list[float]] = Field({})


class Manifest(Section):
    """What a baseline folder says of itself. `quantiles` are those of each channel, `{"0.5": value, ...}`."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer version may say more

    format: int
    id: str = Field("", description="hash of the contents; the folder's name")
    embedder: Pinned | None = None
    evaluator_version: str = ""
    samples: int = Field(ge=0)
    split: dict[str, int] = Field({}, description="samples by third, and how many blocks they were split in")
    left_out: dict[str, int] = Field({}, description="samples that are no part of it, by reason")
    since: float | None = Field(None, description="time of the first sample, epoch seconds")
    until: float | None = Field(None, description="time of the last sample, epoch seconds")
    models: dict[str, int] = Field({}, description="samples by model")
    languages: dict[str, int] = Field({}, description="samples by language of the response, where it is clear")
    seed: int = 0
    created: float = Field(ge=0, description="epoch seconds")
    run_length: RunLength | None = None
    geometry: dict[str, float] = Field(
        {}, description="clusters, dimensions, penalty of the regression, explained share"
    )
    calibration: dict[str, dict[str, Any]] = Field({}, description="by channel: threshold, curve, how extrapolated")
    quantiles: dict[str, dict[str, float]] = Field({})
    checks: dict[str, Counts] = Field({}, description="by check, over the whitening and calibration thirds")
    usual: dict[str, tuple[float, float]] = Field(
        {}, description="by score (one minus it) and scalar channel: median and reach, see `scalars`"
    )
    normal: Normal = Field(Normal(), description="limits of the e-detectors over all samples")
    segments: dict[str, Normal] = Field({}, description="the same by segment, of those with samples enough")
    remarks: list[str] = Field([], description="what a person should know of it")
    arrays: str = Field("", description="sha256 of arrays.npz")


def load(folder: Path) -> Manifest:
    """The manifest of a baseline, or of the current one of a folder of baselines. Raises ConfigError, one line."""
    path = located(folder) / NAME
    if path.parent == folder and (some := _fitted(folder)) and not path.exists():
        raise ConfigError(f"{folder}: none is current: palegreen baseline promote {some}")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST)
        manifest = Manifest.model_validate_json(content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; allowed: the folder of a baseline") from None
    except ValidationError as refused:
        raise ConfigError(f"{path}: {problem(refused)}") from None
    if manifest.format != FORMAT:
        raise ConfigError(f"{path}: format: got {manifest.format}; allowed: {FORMAT}")
    if (manifest.id or manifest.arrays) and manifest.id != identity(json.loads(content)):
        raise ConfigError(f"{path}: was changed after the fit: its contents are not those of {manifest.id or 'its id'}")
    return manifest


def located(folder: Path) -> Path:
    """The folder of a baseline: this one, or where it has many, the one that `current` points to."""
    return folder if (folder / NAME).exists() or not (folder / CURRENT).exists() else folder / CURRENT


def _fitted(folder: Path) -> Path | None:
    """The latest baseline of a folder of baselines, if there is one."""
    manifests = {path.parent: path.stat().st_mtime for path in folder.glob(f"[!.]*/{NAME}")}
    return max(manifests, key=lambda path: manifests[path], default=None)


def mismatch(manifest: Manifest, embedder: Embedder | None) -> str:
    """Why samples seen through this embedder cannot be compared with the baseline; empty if they can."""
    if manifest.embedder is None or (embedder is not None and manifest.embedder.digest == embedder.digest):
        return ""
    mine = f"{embedder.name} ({embedder.digest[:12]})" if embedder is not None else "none"
    theirs = f"{manifest.embedder.name} ({manifest.embedder.digest[:12]})"
    return f"the baseline is of the embedder {theirs}, this evaluator's is {mine}; fit one with this embedder"


def show(collected: Collected, manifest: Manifest, name: str, mismatched: bool, labels: tuple[str, ...]) -> None:
    """Add what is published of the baseline in force; `labels` are those of its model and replica."""
    embedder = manifest.embedder.name if manifest.embedder is not None else ""
    collected.add("palegreen_baseline_info", 1, *labels, manifest.id or name, embedder, manifest.evaluator_version)
    collected.add("palegreen_baseline_samples", manifest.samples, *labels)
    collected.add("palegreen_baseline_created_timestamp_seconds", manifest.created, *labels)
    collected.add("palegreen_baseline_mismatch", mismatched, *labels)
