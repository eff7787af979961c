"""Parts of the traffic that are watched by themselves too: an endpoint, a language, a route, a tenant.

They are named beforehand, so there is a bounded number of them. What a sample belongs to hangs on the request alone:
a model that answers in another language must not leave the segment of those who asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from palegreen.evaluators.checks.lid import language_of
from palegreen.evaluators.sample import Sample

MOST = 16
"""Segments at most."""
LEAST = 100
"""Samples on which checks are counted that a segment has at least; with fewer it has no limits of its own."""
Named = tuple[str, str]
"""Kind and value: ("endpoint", "chat")."""


def names_of(sample: Sample, wanted: Sequence[Named]) -> list[str]:
    """Names of the segments that a sample is in, such as `endpoint=chat`; of a kind there is one at most."""
    kinds = {kind for kind, _ in wanted}
    values = {"endpoint": sample.endpoint, "route": sample.route, "tenant": sample.team}
    if "language" in kinds:
        language = language_of(sample.prompt)
        values["language"] = language.code if language is not None else ""
    return [name(each) for each in wanted if values[each[0]] == each[1]]


def name(segment: Named) -> str:
    """As it is written in manifests, logs and alarms."""
    return "=".join(segment)
