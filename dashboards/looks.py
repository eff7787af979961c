"""Colours, units and the words that stand for numbers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from grafana_foundation_sdk.models.dashboard import Threshold, ValueMap, ValueMapping, ValueMappingResult

GREEN, YELLOW, ORANGE, RED, PURPLE, BLUE, GRAY = (
    "green", "yellow", "orange", "red", "purple", "blue", "#8e8e8e",
)  # fmt: skip

SECONDS, BYTES, SHARE, PER_SECOND, COUNT = "s", "bytes", "percentunit", "cps", "short"
BYTES_PER_SECOND, TOKENS_PER_SECOND, WATTS, CELSIUS, HERTZ = "Bps", "si:tok/s", "watt", "celsius", "hertz"
SINCE, NONE = "dateTimeFromNow", "none"

VERDICTS = {"slow": (1, ORANGE), "weird": (2, PURPLE), "expensive": (4, YELLOW), "blind": (8, BLUE)}
"""The bit of each verdict in the number that a timeline shows, and its colour."""
OWNERS = {"platform": BLUE, "model": PURPLE}
SEVERITIES = {"critical": RED, "warning": ORANGE, "info": BLUE}
"""The gravest first: a table sorts by their rank."""

Steps = list[Threshold]


def steps(*bounds: tuple[float, str], base: str = GREEN) -> Steps:
    """From each bound on, its colour."""
    return [Threshold(value=None, color=base), *(Threshold(value=value, color=color) for value, color in bounds)]


def words(meanings: Mapping[str, tuple[str, str]]) -> list[ValueMapping]:
    """For each value, the word that is shown and its colour."""
    return [
        ValueMap(
            options={
                value: ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(meanings.items())
            }
        )
    ]


def colored(colors: Mapping[str, str]) -> list[ValueMapping]:
    """Words that are shown as they are, in colours."""
    return words({word: (word, color) for word, color in colors.items()})


def severities() -> list[ValueMapping]:
    """Words for the rank of a severity."""
    return words({str(rank): (name, color) for rank, (name, color) in enumerate(SEVERITIES.items())})


def verdicts() -> list[ValueMapping]:
    """Words for the sum of the bits of the verdicts that hold; the colour is that of the gravest."""
    meanings = {"0": ("well", GREEN)}
    for held in product((False, True), repeat=len(VERDICTS)):
        names = [name for name, holds in zip(VERDICTS, held, strict=True) if holds]
        if names:
            grave = RED if {"slow", "weird"} <= set(names) else VERDICTS[names[0]][1]
            meanings[str(sum(VERDICTS[name][0] for name in names))] = (" + ".join(names), grave)
    return words(dict(sorted(meanings.items(), key=lambda item: int(item[0]))))
