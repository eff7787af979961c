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
    return {
        "age": now - baseline.created > max_age,
        "deploy": deployed is not None and deployed > last,
        "mismatch": bool(mismatch or of_another_version(baseline)),
    }


def of_another_version(baseline: Manifest) -> str:
    """What to say of a baseline that another version of Palegreen made; empty if this one did, or it does not say."""
    if baseline.evaluator_version in ("", _VERSION):
        return ""
    return f"palegreen {baseline.evaluator_version} made it, this is {_VERSION}; fit it again if checks have changed"


def show(collected: Collected, stale: Mapping[str, bool], labels: tuple[str, ...]) -> None:
    """Add a series for each reason; `labels` are those of the model and replica."""
    for reason, holds in stale.items():
        collected.add("palegreen_baseline_stale", holds, *labels, reason)
