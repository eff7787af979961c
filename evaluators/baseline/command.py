"""From recorded samples to a folder: what `palegreen baseline fit` does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from palegreen.evaluators.baseline.engine import engine
from palegreen.evaluators.baseline.errors import BaselineError
from palegreen.evaluators.baseline.prepare import embed, gather
from palegreen.evaluators.baseline.progress import Bar
from palegreen.evaluators.baseline.registry import save
from palegreen.evaluators.baseline.runlength import declare
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed.choose import embedder
from palegreen.runtime.yamlfile import Document


class Made(NamedTuple):
    """A baseline that was fitted: its folder, whether the same one was there already, what to know of it."""

    folder: Path
    known: bool
    remarks: list[str]


def fit(
    source: Path,
    root: Path,
    *,
    false_alarm_every: str,
    replicas: int | None,
    embedder_name: str | None,
    seed: int,
    config: Path | None,
    on: str,
    created: float,
    bar: Bar,
    since: float | None = None,
) -> Made:
    """Fit a baseline to the samples of `source` and write it into the folder `root`.

    `config` is the evaluator's configuration, of which redaction, checks, segments and embedder are taken. `on` is the
    engine, `local` or `ray`. `since` leaves out samples before that time, epoch seconds.

    Raises:
        BaselineError, ConfigError, EmbedderError: it cannot be; one line.
    """
    try:
        from palegreen.evaluators.baseline.fit import Detectors
        from palegreen.evaluators.baseline.fit import fit as fitted
    except ModuleNotFoundError as missing:
        if missing.name != "sklearn":
            raise
        raise BaselineError("a fit needs scikit-learn: pip install 'palegreen[fit]'") from None
    from palegreen.evaluators.detectors.bounds import limits
    from palegreen.evaluators.detectors.calibrate import calibrate

    settings = Document.read(config).validate(EvaluateConfig) if config is not None else EvaluateConfig()
    chosen = embedder(embedder_name or settings.embedder, settings.offline_threads())
    if chosen is None:
        raise BaselineError("a baseline needs an embedder; allowed: minilm, static, sentence-transformers:MODEL")
    checks = build(settings.checks)
    with engine(on, chosen, settings) as working:
        gathered = gather(working.redacted(source, since), bar)
        run_length = declare(false_alarm_every, gathered.samples, replicas)
        prepared = embed(gathered, working, bar)
    detectors = Detectors(calibrate, limits)
    made = fitted(
        prepared,
        chosen,
        checks,
        detectors,
        run_length,
        segments=settings.drift.segments.named(),
        seed=seed,
        created=created,
        bar=bar,
    )
    saved = save(root, made.manifest, made.arrays)
    return Made(saved.folder, saved.known, made.manifest.remarks)
