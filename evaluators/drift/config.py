"""The section `drift` of the configuration."""

from __future__ import annotations

from pydantic import Field, model_validator

from palegreen.evaluators.baseline.segments import MOST, Named
from palegreen.runtime.settings import Section


class SegmentsConfig(Section):
    """Which parts of the traffic are watched by themselves too: values that are looked for, by what they are of."""

    endpoint: list[str] = Field([], description="logical services")
    language: list[str] = Field([], description="languages of the user's last message (ISO 639-1), such as en")
    route: list[str] = Field([], description="API paths")
    tenant: list[str] = Field([], description="teams, the field `team` of samples")

    @model_validator(mode="after")
    def _few(self) -> SegmentsConfig:
        count = len(self.named())
        if count > MOST:
            raise ValueError(f"{count} segments; allowed: {MOST} at most, all kinds together")
        if any(not value for _, value in self.named()):
            raise ValueError("an empty value; allowed: names")
        return self

    def named(self) -> tuple[Named, ...]:
        """What is looked for, as (kind, value), without repetitions."""
        found = ((kind, value) for kind in type(self).model_fields for value in getattr(self, kind))
        return tuple(dict.fromkeys(found))


class DriftConfig(Section):
    """What the comparison with the baseline can be told."""

    segments: SegmentsConfig = Field(
        SegmentsConfig(),
        description="endpoint, language, route, tenant: lists of values; a fit reads them too",
    )
    state: str = Field(
        "", description="file in which the detectors go on after a restart, or none [default: beside the store]"
    )
