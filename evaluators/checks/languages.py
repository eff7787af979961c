"""Whether a conversation names a language or asks for a translation: then another one in the answer is no fault."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import resources

import yaml

from palegreen.evaluators.sample import Message

_READ = 2_000
_ROLES = ("user", "system", "developer")
_WORD = re.compile(r"\w+")


def names_a_language(messages: Iterable[Message]) -> bool:
    """Whether the user or the system prompt does, in one of some twenty languages; of a long message the first and
    the last 2,000 characters are read.
    """
    return any(
        _named(text if len(text) <= 2 * _READ else f"{text[:_READ]} {text[-_READ:]}")
        for text in (message["content"] for message in messages if message["role"] in _ROLES)
    )


@lru_cache(maxsize=256)
def _named(text: str) -> bool:
    words, pieces = _lists()
    text = text.lower()
    return not words.isdisjoint(_WORD.findall(text)) or (not text.isascii() and any(piece in text for piece in pieces))


@cache
def _lists() -> tuple[frozenset[str], tuple[str, ...]]:
    """Words that stand alone, and pieces that may be part of a word or stand where there are no blanks."""
    lists = yaml.safe_load(resources.files(__package__).joinpath("languages.yaml").read_bytes())
    words = frozenset(word for line in lists["words"].values() for word in line.split())
    return words, tuple(piece for line in lists["pieces"].values() for piece in line.split())
