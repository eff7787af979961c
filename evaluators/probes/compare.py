"""How near an answer is to recorded ones: each component from 0, nothing in common, to 1, the same.

Logprobs of fixed prompts show a changed model that still writes the same words (Gao, Liang, Guestrin, "Model Equality
Testing: Which Model Is This API Serving?", 2024, and the logprob tracking that followed it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from palegreen.evaluators.probes.lazily import Vector

Component = Literal["exact", "edit", "embedding", "first_token", "logprob"]
COMPONENTS: tuple[Component, ...] = ("exact", "edit", "embedding", "first_token", "logprob")
Embed = Callable[[str], Vector | None]
"""The unit vector of a text, None where there is no embedder."""

TIE = 0.25
"""Nats between two tokens that another batch may swap: logits of 16 to 32 in bfloat16 are 0.125 apart."""
_LONGEST = 2000  # characters that are compared


class Worded(Protocol):
    """What is known of a token."""

    @property
    def text(self) -> str:
        """As it is written."""
        ...

    @property
    def logprob(self) -> float:
        """Its own."""
        ...

    @property
    def top(self) -> dict[str, float]:
        """Those of the likeliest in its place."""
        ...


class Answered(Protocol):
    """An answer, recorded or new."""

    @property
    def text(self) -> str:
        """All that was written."""
        ...

    @property
    def tokens(self) -> Sequence[Worded]:
        """With their logprobs; empty where the engine tells none."""
        ...


def compare(answer: Answered, recorded: Answered, embed: Embed) -> dict[Component, float]:
    """The components of an answer against one recorded answer, as far as they can be told."""
    same = answer.text == recorded.text
    found: dict[Component, float] = {"exact": float(same), "edit": 1.0 if same else edit(answer.text, recorded.text)}
    if same:
        found["embedding"] = 1.0
    elif (near := cosine(embed, answer.text, recorded.text)) is not None:
        found["embedding"] = near
    if answer.tokens and recorded.tokens:
        if answer.tokens[0].top and recorded.tokens[0].top:
            found["first_token"] = 1 - variation(answer.tokens[0].top, recorded.tokens[0].top)
        shift = logprob_shift(answer.tokens, recorded.tokens)
        if shift is not None:
            found["logprob"] = math.exp(-shift)
    return found


def edit(one: str, other: str) -> float:
    """One minus Levenshtein's distance over the longer length."""
    one, other = one[:_LONGEST], other[:_LONGEST]
    if not one or not other:
        return float(one == other)
    letters = np.array([ord(letter) for letter in other])
    steps = np.arange(len(other) + 1)
    row = steps.copy()
    for at, letter in enumerate(one, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (letters != ord(letter)))
        row = np.minimum.accumulate(np.concatenate(([at], best)) - steps) + steps  # insertions, all at once
    return float(1 - row[-1] / max(len(one), len(other)))


def cosine(embed: Embed, one: str, other: str) -> float | None:
    """Cosine of two texts, 0 where it is negative or a text is empty; None without an embedder."""
    first, second = embed(one), embed(other)
    return float(np.clip(first @ second, 0, 1)) if first is not None and second is not None else None


def variation(one: dict[str, float], other: dict[str, float]) -> float:
    """Total variation of two distributions of which only the likeliest tokens are known, by logprob.

    What is not listed is one more token; so this is at most the true one, but for tokens at the end of the lists.
    """
    first, second = ({token: math.exp(min(value, 0)) for token, value in each.items()} for each in (one, other))
    apart = sum(abs(first.get(token, 0.0) - second.get(token, 0.0)) for token in first.keys() | second.keys())
    rest = abs(max(0.0, 1 - sum(first.values())) - max(0.0, 1 - sum(second.values())))
    return min(1.0, (apart + rest) / 2)


def logprob_shift(one: Sequence[Worded], other: Sequence[Worded]) -> float | None:
    """Mean absolute difference of the logprobs where both write the same from the start; None if they never do."""
    apart = []
    for first, second in zip(one, other, strict=False):
        if first.text != second.text:
            break
        apart.append(abs(first.logprob - second.logprob))
    return sum(apart) / len(apart) if apart else None


def is_tie(answer: Answered, recorded: Answered) -> bool:
    """Whether two answers part at a token that was as good as tied with the one in its place when it was recorded."""
    for said, known in zip(answer.tokens, recorded.tokens, strict=False):
        if said.text != known.text:
            rival = known.top.get(said.text)
            return rival is not None and abs(known.logprob - rival) <= TIE
    return False
