"""Durations and sizes as people write them in configuration: `500ms`, `15s`, `2m`; `16MiB`, `200MB`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}


def seconds(value: object) -> float:
    """Seconds of a number or of a text such as `15s` or `1m30s`; raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):  # a flag or a variable
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"got {text!r}; allowed: a number of seconds, or one with a unit such as 500ms, 15s, 2m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size(value: object) -> int:
    """Bytes of a number or of a text such as `16MiB`; raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", str(value).strip())
    if isinstance(value, bool) or match is None or match[2].lower() not in _BYTES:
        raise ValueError(f"got {value!r}; allowed: a number of bytes, or one with a unit such as 512KiB, 16MiB")
    return int(match[1]) * _BYTES[match[2].lower()]


# At most ten years: what waits for a time cannot wait for ever.
Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=315_360_000)]
Bytes = Annotated[int, BeforeValidator(size), Field(gt=0)]
