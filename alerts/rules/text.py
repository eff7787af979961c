"""PromQL of the data files: labels, thresholds and windows filled in."""

from __future__ import annotations

import re

from palegreen.catalogue.thresholds import thresholds

REPLICA = ("model", "endpoint", "instance_id", "namespace", "pod")
MODEL = ("model", "endpoint", "namespace")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"\d+[smhd]"
_WINDOW = re.compile(rf"\[({_DURATION})\]|\boffset ({_DURATION})\b")
_NAME = re.compile(r"\$(\w+)")


def seconds(duration: str) -> int:
    """Seconds of a duration such as 90s or 6h."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


def scaled(duration: str, scale: float) -> str:
    """A duration divided by `scale`: as it was at 1, else in whole seconds, one at least unless it was none."""
    if scale == 1 or not seconds(duration):
        return duration
    return f"{max(1, round(seconds(duration) / scale))}s"


def filled(text: str, scale: float, **own: str) -> str:
    """PromQL with `$R` and `$M` as labels, `$threshold` as the number of that series, windows and offsets scaled.

    `own` are names of the caller. Raises KeyError for a name that nobody knows.
    """

    def name(found: re.Match[str]) -> str:
        known = {"R": ", ".join(REPLICA), "M": ", ".join(MODEL)} | own
        if found[1] in known:
            return known[found[1]]
        return f'scalar(palegreen:threshold{{name="{thresholds()[found[1]].name}"}})'

    def window(found: re.Match[str]) -> str:
        return f"[{scaled(found[1], scale)}]" if found[1] else f"offset {scaled(found[2], scale)}"

    return _WINDOW.sub(window, _NAME.sub(name, text)).strip()
