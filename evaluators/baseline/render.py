"""A baseline's manifest as a page for a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from palegreen.evaluators.baseline.manifest import Manifest


def page(manifest: Manifest, now: float) -> str:
    """Lines of `what  value`; `now` is epoch seconds, for the age."""
    rows = list(_rows(manifest, now))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rows(of: Manifest, now: float) -> Iterator[tuple[str, str]]:
    yield "baseline", of.id or "without an id"
    yield "made", f"{_moment(of.created)}, {max(now - of.created, 0) / 86400:.1f} days ago"
    yield "embedder", f"{of.embedder.name} ({of.embedder.digest[:12]})" if of.embedder else "none"
    yield "evaluator", of.evaluator_version or "unknown"
    others = ", ".join(f"{times} {reason}" for reason, times in of.left_out.items())
    yield "samples", str(of.samples) + (f"; left out: {others}" if others else "")
    if of.since is not None and of.until is not None:
        yield "recorded", f"{_moment(of.since)} to {_moment(of.until)}"
    if of.split:
        yield "split", ", ".join(f"{name} {count}" for name, count in of.split.items()) + f"; seed {of.seed}"
    if of.run_length is not None:
        whole = of.run_length
        yield "run length", f"{whole.samples:.0f} samples ({whole.how}), {whole.replicas} replica(s)"
        yield "", "of it: " + ", ".join(f"{name} {length:.0f}" for name, length in whole.shares.items())
    for channel, said in of.calibration.items():
        yield f"{channel} channel", f"threshold {said['threshold']:.2f}, {said['how']}{_other_mixes(said)}"
    if of.geometry:
        yield "question", f"explains {of.geometry.get('explained', 0):.1%} of the responses' variance"
        yield "clusters", f"{of.geometry.get('clusters', 0):.0f}, the last of samples without a prompt"
    for name, counts in of.checks.items():
        if sum(counts.failures):
            share = sum(counts.failures) / sum(counts.judged)
            yield f"check {name}", f"fails {share:.2%} of {sum(counts.judged)}"
    for channel, quantiles in of.quantiles.items():
        yield f"channel {channel}", ", ".join(f"{at}: {value:.3g}" for at, value in quantiles.items())
    for remark in of.remarks:
        yield "note", remark


def _other_mixes(said: dict[str, Any]) -> str:
    """What the threshold gives when other questions are asked than in the baseline, as far as that was simulated."""
    thresholds, _, other = said["curve"]
    if said["threshold"] > thresholds[-1]:
        return ""
    length = float(np.interp(said["threshold"], thresholds, other))
    return f"; {length / said['run_length']:.2f} of its run length with other mixes of questions"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
