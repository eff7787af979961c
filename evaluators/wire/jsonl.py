"""Recorded samples: one JSON object a line, one choice an object."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from palegreen.evaluators.sample import Sample

_USAGE = ("prompt_tokens", "completion_tokens")
_DEFAULTS = {
    field.name: field.default_factory() if field.default_factory is not MISSING else field.default
    for field in fields(Sample)
}


def to_record(sample: Sample) -> dict[str, Any]:
    """The sample as a recorded object; what is unknown is left out."""
    record: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        value = getattr(sample, name)
        if name == "response" or (value != default and name not in _USAGE):
            record[name] = value
    usage = {name: getattr(sample, name) for name in _USAGE if getattr(sample, name) is not None}
    return {**record, "usage": usage} if usage else record


def from_record(record: dict[str, Any], where: str) -> Sample:
    """The sample of a recorded object. Raises ValueError, one line that begins with `where`."""
    if not isinstance(record.get("response"), str):
        raise ValueError(f"{where}: response is not there; allowed: a text")
    return Sample(**{name: value for name, value in record.items() if name in _DEFAULTS}, **(record.get("usage") or {}))
