"""Writing systems of characters, by Unicode block; only letters count."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache

# First and last code point of the blocks of each script, as far as models write them (Unicode 16, Blocks.txt).
_BLOCKS = (
    (0x0041, 0x024F, "Latin"),
    (0x0250, 0x02AF, "IPA"),
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0530, 0x058F, "Armenian"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x077F, "Arabic"),
    (0x0780, 0x07BF, "Thaana"),
    (0x08A0, 0x08FF, "Arabic"),
    (0x0900, 0x097F, "Devanagari"),
    (0x0980, 0x09FF, "Bengali"),
    (0x0A00, 0x0A7F, "Gurmukhi"),
    (0x0A80, 0x0AFF, "Gujarati"),
    (0x0B00, 0x0B7F, "Oriya"),
    (0x0B80, 0x0BFF, "Tamil"),
    (0x0C00, 0x0C7F, "Telugu"),
    (0x0C80, 0x0CFF, "Kannada"),
    (0x0D00, 0x0D7F, "Malayalam"),
    (0x0D80, 0x0DFF, "Sinhala"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Myanmar"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1200, 0x139F, "Ethiopic"),
    (0x1780, 0x17FF, "Khmer"),
    (0x1800, 0x18AF, "Mongolian"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x3041, 0x30FF, "Kana"),
    (0x3130, 0x318F, "Hangul"),
    (0x31F0, 0x31FF, "Kana"),
    (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"),
    (0xA960, 0xA97F, "Hangul"),
    (0xAC00, 0xD7FF, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0xFB50, 0xFDFF, "Arabic"),
    (0xFE70, 0xFEFF, "Arabic"),
    (0xFF66, 0xFF9F, "Kana"),
    (0x20000, 0x323AF, "Han"),
)
_STARTS = [first for first, _, _ in _BLOCKS]
NAMES = frozenset(name for _, _, name in _BLOCKS)

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


@lru_cache(maxsize=8192)
def script_of(character: str) -> str:
    """Script of a letter, empty for what is no letter or belongs to none of the scripts told apart."""
    if not character.isalpha():
        return ""
    point = ord(character)
    at = bisect_right(_STARTS, point) - 1
    if at < 0:
        return ""
    _, last, name = _BLOCKS[at]
    return name if point <= last else ""


def letters_by_script(text: str) -> dict[str, int]:
    """How many letters of each script there are."""
    counts: dict[str, int] = {}
    for character in set(text):
        script = script_of(character)
        if script:
            counts[script] = counts.get(script, 0) + text.count(character)
    return counts


def scripts_of(text: str) -> frozenset[str]:
    """The scripts that occur in a text."""
    if text.isascii():
        return frozenset(("Latin",)) if text else frozenset()
    return frozenset(map(script_of, set(text))) - {""}


def unspaced(text: str) -> int:
    """Letters of scripts that write words without blanks between them."""
    return len(_UNSPACED.findall(text))
