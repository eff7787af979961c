"""What the demo asks: seeded chat requests to an invented bank's assistant, seven kinds, thousands of different ones.

The demo's baseline and the captures of `benchmarks/drift` were made with the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

KINDS = ("explain", "fact", "howto", "list", "passage", "support", "write")
MAX_TOKENS = 64
TEMPERATURE = 0.7


class Question(NamedTuple):
    """What a user asks, and the passages that were retrieved for it."""

    kind: str
    text: str
    contexts: tuple[str, ...] = ()

    def messages(self, system: str | None) -> list[dict[str, str]]:
        """As chat messages, the passages in front of the question."""
        passages = "\n".join(self.contexts)
        said = {"role": "user", "content": f"Passage: {passages}\n\n{self.text}" if self.contexts else self.text}
        return [{"role": "system", "content": system}, said] if system else [said]


@cache
def _data() -> Mapping[str, Any]:
    said: Mapping[str, Any] = yaml.safe_load((files("palegreen.demo") / "questions.yaml").read_text())
    return said


def system_prompt() -> str:
    """What the assistant is told."""
    return str(_data()["system"])


def questions(seed: int, count: int, weights: Mapping[str, float] | None = None) -> list[Question]:
    """`count` questions, the same for the same seed. `weights`: how often each kind comes, 1 where not given."""
    rng = random.Random(seed)  # noqa: S311 - which questions come is no secret
    shares = [(weights or {}).get(kind, 1.0) for kind in KINDS]
    return [_question(rng, kind) for kind in rng.choices(KINDS, shares, k=count)]


def passage(rng: random.Random) -> tuple[str, str]:
    """A passage about an invented product, and the product."""
    product = f"{rng.choice(_data()['names'])} {rng.choice(_data()['products'])}"
    rate, fee = rng.randrange(5, 80) / 10, rng.randrange(0, 25)
    text = (
        f"The {product} of Fernwood Bank has an interest rate of {rate} percent a year. The monthly fee is {fee}"
        f" dollars. The minimum deposit is {rng.randrange(1, 60) * 50} dollars. It can be ended with a notice of"
        f" {rng.choice((7, 14, 30, 60, 90))} days. It was introduced in {rng.randrange(1998, 2024)}."
    )
    return text, product


def _question(rng: random.Random, kind: str) -> Question:
    if kind == "passage":
        text, product = passage(rng)
        return Question(kind, rng.choice(_data()["passage_questions"]).format(product=product), (text,))
    said = dict(_data()["kinds"][kind])
    templates = said.pop("templates")
    template = rng.choice(templates) if len(templates) > 1 else templates[0]
    return Question(kind, template.format(**{gap: rng.choice(words) for gap, words in said.items()}))
