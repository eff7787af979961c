"""Gibberish: letters that no language puts next to each other, and words that mix alphabets.

Fails: pairs of Latin letters whose mean surprise is above 5.1 bits, over at least 100 of them (prose in twenty
languages: 3.9, one text in a thousand above 4.8; random letters: 5.4 to 6.4), or three words in which Latin letters
touch Cyrillic, Arabic, Hebrew, Thai or Devanagari ones, or 60 words and more of which less than 3% have occurred before
(prose: 35%, one text in two hundred below 10%), unless commas or line ends make it a list. The score falls from 1 at
4.5 bits to 0 at 6. Skipped: fewer pairs, and answers given as JSON. Fenced code is left out, as are long strings
without blanks (keys, hashes, base64). Sentences of ordinary words without sense are not seen: `logprob` and the cosines
see those.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import resources

import numpy as np
import yaml
from numpy.typing import NDArray

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View

_MAX_BITS = 5.1
_BEST_BITS, _WORST_BITS = 4.5, 6.0
_MIN_PAIRS = 100
_MAX_MIXED = 2
_SALAD_WORDS, _SALAD_MOST = 60, 200
_SALAD_REPEATS = 0.03
_LIST_MARKS = ",;\n|\t"
_LIST_SHARE = 0.2
_SPACED = frozenset(("Latin", "Cyrillic", "Greek", "IPA"))  # where particles are words of their own
_SPACED_SHARE = 0.8
_OPAQUE = 32  # characters without a blank: links, paths, keys, base64
_OTHER = "\u0400-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f"
_MIXED = re.compile(rf"[A-Za-z]{{2}}[{_OTHER}]{{2}}|[{_OTHER}]{{2}}[A-Za-z]{{2}}")
_LETTERS = bytes(code - 96 if 97 <= code <= 122 else 0 for code in range(256))  # a-z: 1-26, all else: 0


def check(view: View) -> Outcome | None:
    """Whether the letters look like a language's."""
    prose = view.prose
    if view.wants_json or len(prose) < _MIN_PAIRS:
        return None
    if not prose.isascii() and len(view.scripts) > 1:
        mixed = len(_MIXED.findall(prose))
        if mixed > _MAX_MIXED:
            return Outcome(False, 0.0, f"{mixed} words mix alphabets")
    if _is_salad(view):
        return Outcome(False, 0.0, "hardly a word occurs twice")
    bits, pairs = _surprise(" ".join([word for word in prose.split() if len(word) < _OPAQUE]))
    if pairs < _MIN_PAIRS:
        return None
    score = min(max((_WORST_BITS - bits) / (_WORST_BITS - _BEST_BITS), 0.0), 1.0)
    if bits > _MAX_BITS:
        return Outcome(False, score, f"pairs of letters carry {bits:.1f} bits, at most {_MAX_BITS}")
    return Outcome(True, score)


def _is_salad(view: View) -> bool:
    """Whether words were drawn by chance: prose cannot do without saying "the" again."""
    words = [word for word in view.words[:_SALAD_MOST] if word.isalpha()]
    if len(words) < _SALAD_WORDS or len(set(words)) <= (1 - _SALAD_REPEATS) * len(words):
        return False
    marks = sum(map(view.prose.count, _LIST_MARKS))
    spaced = sum(count for script, count in view.scripts.items() if script in _SPACED)
    return marks < _LIST_SHARE * len(view.words) and spaced >= _SPACED_SHARE * sum(view.scripts.values())


def _surprise(text: str) -> tuple[float, int]:
    """Mean surprise in bits of the pairs that hold a Latin letter, and how many they are."""
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    letters = np.frombuffer(text.encode("ascii", "ignore").translate(_LETTERS), np.uint8).astype(np.intp)
    pairs = letters[:-1] * 27 + letters[1:]
    count = int(np.count_nonzero(pairs))
    return (float(_table()[pairs].sum()) / count if count else 0.0), count


@cache
def _table() -> NDArray[np.float32]:
    """Surprise in bits of each pair, blank and a to z; shape (729,), the pair of two blanks is 0."""
    rows = yaml.safe_load(resources.files(__package__).joinpath("bigrams.yaml").read_bytes())["pairs"]
    return (np.frombuffer("".join(rows).encode(), np.uint8).astype(np.float32) - np.float32(48)) / np.float32(4)
