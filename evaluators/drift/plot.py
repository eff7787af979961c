"""The ratios of a replay as inline SVG: one strip a channel over the samples, with its alarms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.drift.alarm import CHANNELS, Channel
from palegreen.evaluators.drift.backtest import Raised, Replay

_LEFT, _RIGHT, _WIDE = 52, 16, 960
_HIGH, _GAP, _TOP, _BOTTOM = 120, 34, 24, 30
_TITLES: dict[Channel, str] = {
    "response": "response: answers to like questions (pages)",
    "prompt": "prompt: what users ask (informs)",
    "check": "check: failures and scores (pages)",
}


def strips(of: Replay) -> str:
    """An SVG element; colours are those of the page's style."""
    shown = [(at, channel) for at, channel in enumerate(CHANNELS) if not np.isnan(of.ratios[:, at]).all()]
    height = _TOP + len(shown) * (_HIGH + _GAP) + _BOTTOM - _GAP
    label = "Ratio of each channel to its threshold, by sample"
    parts = [f'<svg viewBox="0 0 {_WIDE} {height}" role="img" aria-label="{label}">']
    for place, (at, channel) in enumerate(shown):
        top = _TOP + place * (_HIGH + _GAP)
        alarms = [each for each in of.alarms if each.alarm.channel == channel]
        parts += _strip(channel, of.ratios[:, at], alarms, top)
    parts += _axis(of.total, height - _BOTTOM)
    return "".join(parts) + "</svg>"


def _strip(channel: Channel, ratios: NDArray[np.float32], alarms: Sequence[Raised], top: int) -> Iterator[str]:
    total = len(ratios)
    peak = float(np.nanmax(ratios))
    highest = 2 ** max(2, math.ceil(math.log2(max(peak, 1) + 1))) - 1
    floor = top + _HIGH

    def across(sample: float) -> float:
        return _LEFT + (_WIDE - _LEFT - _RIGHT) * sample / max(1, total - 1)

    def up(ratio: float) -> float:
        return floor - _HIGH * math.log2(1 + max(ratio, 0.0)) / math.log2(1 + highest)

    yield f'<text class="title" x="{_LEFT}" y="{top - 8}">{_TITLES[channel]}</text>'
    for raised in alarms:
        first, last = raised.alarm.since, raised.released if raised.released is not None else total - 1
        width = max(across(last) - across(first), 2)
        yield f'<rect class="span" x="{across(first):.1f}" y="{top}" width="{width:.1f}" height="{_HIGH}"/>'
    for tick in sorted({0, 1, 3, *([highest] if highest > 3 else [])}):
        line = "threshold" if tick == 1 else "grid"
        yield f'<line class="{line}" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
    points = " ".join(f"{across(sample):.1f},{up(ratio):.1f}" for sample, ratio in _thinned(ratios))
    yield f'<polyline class="{channel}" points="{points}"/>'
    for raised in alarms:
        x, alarm = across(raised.alarm.sample), raised.alarm
        said = f"{channel} alarm at sample {alarm.sample}, since {alarm.since}: {', '.join(alarm.checks) or alarm.side}"
        mark = f"M{x - 6:.1f},{top - 2} h12 l-6,10 z"
        kind = "pages" if alarm.pages else "informs"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{floor}"/>'
        yield f'<path class="{kind}" d="{mark}"><title>{escape(said)}</title></path>'


def _thinned(ratios: NDArray[np.float32]) -> Iterator[tuple[int, float]]:
    """The highest of each few samples, so that no alarm is lost."""
    step = max(1, -(-len(ratios) // (_WIDE - _LEFT - _RIGHT)))
    for begin in range(0, len(ratios), step):
        some = ratios[begin : begin + step]
        if not np.isnan(some).all():
            at = int(np.nanargmax(some))
            yield begin + at, float(some[at])


def _axis(total: int, y: int) -> Iterator[str]:
    step = 10 ** max(0, math.floor(math.log10(max(total, 1))))
    step = next(each for each in (max(1, step // 5), max(1, step // 2), step, 2 * step) if total / each <= 8)
    for sample in range(0, total, step):
        x = _LEFT + (_WIDE - _LEFT - _RIGHT) * sample / max(1, total - 1)
        yield f'<text class="tick" x="{x:.1f}" y="{y + 16}" text-anchor="middle">{sample}</text>'
    yield f'<text class="tick" x="{_WIDE - _RIGHT}" y="{y + 28}" text-anchor="end">sample</text>'
