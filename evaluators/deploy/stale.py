"""Whether a baseline still says what is usual: its age, a deploy since, another embedder or version."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version

from palegreen.evaluators.baseline.manifest import Manifest
from palegreen.runtime.exposition import Collected

_VERSION = version("palegreen")


def reasons(
    baseline: Manifest, max_age: float, deployed: float | None, mismatch: str, now: float | None = None
) -> dict[str, bool]:
    """By reason, whether it makes the baseline stale.

    Args:
        max_age: seconds since it was made.
        deployed: when the last deploy was declared, epoch seconds.
        mismatch: why it cannot be used here, empty if it can.
        now: epoch seconds, None for the clock's.
    """
    now = time.time() if now is None else now
    last = baseline.created if baseline.until is None else baseline.until
    of_another = bool(baseline.evaluator_version) and baseline.evaluator_version != _VERSION
    return {
        "age": now - baseline.created > max_age,
        "deploy": deployed is not None and deployed > last,
        "mismatch": bool(mismatch) or of_another,
    }


def show(collected: Collected, stale: Mapping[str, bool], labels: tuple[str, ...]) -> None:
    """Add a series for each reason; `labels` are those of the model and replica."""
    for reason, holds in stale.items():
        collected.add("palegreen_baseline_stale", holds, *labels, reason)
