"""Degenerate loops: one character over and over, an ending that repeats itself, the same phrases again and again.

Fails, on an answer of 20 characters or more:

- a run of 24 equal characters, rulers and blanks excepted (`!!!!`, seen with broken attention kernels), if it makes
  up a tenth of the answer;
- an ending that is one piece of text four times or more, 80 characters in all: a model that loops seldom leaves it;
- an ending that is one word ten times or more, 40 characters in all, with nothing but blanks between;
- a passage of six words or more five times in a row, or one of 16 or more three times, word for word and number for
  number, wherever it stands; answers that are JSON hold equal objects rightly;
- 60 words or more (numbers and single letters left out) of whose runs of eight less than 0.3 are distinct; prose has
  0.95, a poem with a refrain 0.5, and tables of few different words pass because their rows differ;
- in scripts without blanks: 400 letters that zlib packs to less than a tenth.

The score is the share of distinct runs, less the share of the ending that repeats. Rulers, dot leaders and empty table
cells are no loops unless they are half the answer.
"""

from __future__ import annotations

import zlib

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.placeholders import told_apart
from palegreen.evaluators.checks.view import WORD, View

_MIN_TEXT = 20
_RUN = 24
_RUN_SHARE = 0.1
_RULERS = frozenset(
    "-=_.*#~+|<>^\"'`/\\0·…\u2013—―•⋯\uff3f\uff0d \t\n\r\f\v\u00a0\u3000" + "".join(map(chr, range(0x2500, 0x25A0)))
)
_TAIL = 4_000  # characters at the end in which a loop is looked for
_SEED = 12
_CYCLES = 4
_CYCLED = 80
_SAME_WORD = 10
_SAME_WORD_CYCLED = 40
_GRAM = 8
_ROUNDS = ((6, 5), (16, 3))  # words of a passage, and how often in a row it is a loop
_MIN_WORDS = 60
_MAX_WORDS = 2_000
_DISTINCT = 0.3
_PACKED_LETTERS = 400
_PACKED = 0.1


def check(view: View) -> Outcome | None:
    """Whether the answer goes round in circles."""
    text = told_apart(view.text)
    if len(text) < _MIN_TEXT:
        return None
    if len(text) >= _RUN and _has_run(text[-_TAIL:]):
        return Outcome(False, 0.0, f"one character {_RUN} times or more")
    period, looped = _ending(text[-_TAIL:])
    cycled = looped >= _CYCLED and looped >= _CYCLES * period and _is_loop(text, period, looped)
    if cycled or (looped >= max(_SAME_WORD_CYCLED, _SAME_WORD * period) and _is_word(text[-period:])):
        score = 1 - looped / min(len(text), _TAIL)
        return Outcome(False, score, f"the last {looped} characters repeat {period} of them")
    every = view.words if text is view.text else WORD.findall(told_apart(view.unfenced).lower())
    repeated = 0 if text[0] in "{[" else _in_a_row(every[-_MAX_WORDS:])
    if repeated:
        score = 1 - repeated / min(len(every), _MAX_WORDS)
        return Outcome(False, score, f"{repeated} words in a row are one passage again and again")
    words = [word for word in every[-_MAX_WORDS:] if len(word) > 1 and (word.isalpha() or word[0] == "_")]
    if len(words) >= _MIN_WORDS:
        runs = len(words) - _GRAM + 1
        distinct = len(set(zip(*(words[at : at + runs] for at in range(_GRAM)), strict=True))) / runs
        if distinct < _DISTINCT:
            return Outcome(False, distinct, f"{distinct:.0%} of the runs of {_GRAM} words are distinct")
        return Outcome(True, distinct)
    letters = "".join(words).encode("utf-8", "replace") if len(text) >= _PACKED_LETTERS else b""
    if len(letters) >= _PACKED_LETTERS:
        packed = len(zlib.compress(letters, 1)) / len(letters)
        if packed < _PACKED:
            return Outcome(False, packed, f"compresses to {packed:.0%}")
    return Outcome(True, 1.0)


def _has_run(text: str) -> bool:
    """Whether a run of one character makes up enough of a text."""
    run = max(_RUN, int(_RUN_SHARE * len(text)))
    return any(character * run in text for character in set(text) - _RULERS)


def _ending(text: str) -> tuple[int, int]:
    """Period and length of the longest ending that repeats with the period of its last characters, (1, 0) if none."""
    seed = text[-_SEED:]
    before = text.rfind(seed, 0, len(text) - 1)
    if before < 0:
        return 1, 0
    period = len(text) - _SEED - before
    low, high = _SEED + period, len(text)  # the longest ending that equals itself, shifted by the period
    while low < high:
        middle = (low + high + 1) // 2
        ending = text[-middle:]
        if ending[period:] == ending[:-period]:
            low = middle
        else:
            high = middle - 1
    return period, low


def _is_loop(text: str, period: int, looped: int) -> bool:
    return any(map(str.isalpha, text[-period:])) or (looped >= 200 and looped >= len(text) / 2)


def _is_word(piece: str) -> bool:
    """Whether a piece of text is one word and the blank before it."""
    return piece.startswith(" ") and piece[1:].isalpha()


def _in_a_row(words: list[str]) -> int:
    """Length of the longest passage that follows itself often enough, all its rounds counted; 0 if there is none."""
    if len(words) - len(set(words)) < min(size * (times - 1) for size, times in _ROUNDS):
        return 0  # each word of a further round has stood before
    last: dict[tuple[str, ...], int] = {}
    longest = period = equal = 0
    for at, run in enumerate(zip(*(words[start:] for start in range(_GRAM)), strict=False)):
        distance = at - last.get(run, at)
        equal = equal + 1 if distance == period else 1  # runs of words in a row that stand so far apart
        period = distance
        last[run] = at
        whole = period + equal + _GRAM - 1
        if period and any(period >= size and whole >= times * period for size, times in _ROUNDS):
            longest = max(longest, whole)
    return longest
