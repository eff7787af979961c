"""Phone numbers: RE2 finds candidates, Google's libphonenumber (its Python port) says which are numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

import phonenumbers

from palegreen.evaluators.redact.finder import Finder, Span, after, before, compiled

_NEXT = r"[ ()./-]{0,3}\d"
_INTERNATIONAL = rf"(?:\+|\b00|\b011[ -]?) ?\(?[1-9](?:{_NEXT}){{6,16}}"
_WORDS = (
    r"\b(?:phone|tel|telephone|mobile|cell|cellphone|fax|whatsapp|sms|call|dial|handy|mobil|telefon|telefax|portable|"
    r"t[ée]l[ée]phone|tel[ée]fono|m[óo]vil|telefone|celular|cellulare|telefoon|puhelin)(?:nummer|number|[_ -]no)?\b|"
    r"телефон|(?:^|[^\pL])тел[^\pL\d]|моб\.|电话|電話|手机|手機|전화|휴대폰|هاتف|फ़ोन|फोन|โทร"
)
_WORDED = rf"(?i)(?:{_WORDS})[^\d\n+]{{0,16}}(\(?\d(?:[ ()./-]{{0,2}}\d){{6,14}})"
_TRUNK = r"\(?0\d(?:[ ()/.-]{0,2}\d){6,11}"
_DATE = re.compile(r"(?:^|\D)(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2}))(?:\D|$)")
_GROUP = re.compile(r"\d+")
_CAPTURED = re.compile(r"\(([^()]*)\)")


def finder(region: str) -> Finder:
    """A finder for numbers with their country code, and national ones of `region` (ISO 3166, two letters).

    Raises ValueError for a region that is none.
    """
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if metadata is None:
        raise ValueError(f"got {region!r}; allowed: a country's two letters, such as US or DE")
    prefix = metadata.national_prefix or ""
    national = _national(metadata)
    patterns = [_INTERNATIONAL, _WORDED, *((_TRUNK,) if prefix == "0" else ()), *((national,) if national else ())]
    international, worded = compiled(_INTERNATIONAL), compiled(_WORDED)
    others = [compiled(pattern) for pattern in patterns[2:]]
    is_valid = lru_cache(4096)(lambda text: _is_valid(text, region))

    def find(data: bytes) -> Iterator[Span]:
        for match in international.finditer(data):
            if span := _longest(data, match.span(), lambda text: is_valid(_with_plus(text))):
                yield span
        for match in worded.finditer(data):
            start, end = match.span(1)
            if not _DATE.search(data[start:end].decode()) and not after(data, end).isdigit():
                yield start, end
        for pattern in others:
            for match in pattern.finditer(data):
                if span := _longest(data, match.span(), is_valid):
                    yield span

    return Finder("phone", "|".join(f"(?:{pattern})" for pattern in patterns), find)


def _national(metadata: phonenumbers.PhoneMetadata) -> str:
    """Pattern of the ways in which the region writes its numbers in groups, from the library's metadata."""
    prefix = rf"(?:{metadata.national_prefix}[ .-]?)?" if metadata.national_prefix else ""
    shapes = dict.fromkeys(
        rf"{prefix}\(?{groups[0]}\)?[ .-]{{1,2}}" + "[ .-]".join(groups[1:])
        for form in metadata.number_format
        if len(groups := _CAPTURED.findall(form.pattern or "")) > 1
    )
    return "|".join(shapes)


def _with_plus(text: str) -> str:
    stripped = text.lstrip("(")
    for exit_code in ("011", "00"):
        if stripped.startswith(exit_code):
            return "+" + stripped.removeprefix(exit_code)
    return stripped


def _is_valid(text: str, region: str) -> bool:
    try:
        number = phonenumbers.parse(text.replace("(0)", ""), region)
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_valid_number(number))


def _longest(data: bytes, run: Span, is_valid: Callable[[str], bool]) -> Span | None:
    """The longest run of whole groups from the start of `run` that is a number and stands for itself."""
    start, end = run
    ahead = before(data, start)
    if ahead and ((ahead.isascii() and ahead.isalnum()) or ahead in "_.-/"):
        return None
    text = data[start:end].decode()
    if _DATE.search(text):
        return None
    for group in reversed(list(_GROUP.finditer(text))):
        stop = start + group.end()
        behind = after(data, stop, 2)
        if (
            behind[:1].isdigit()
            or (behind[:1] in "-./_" and behind[1:].isalnum())
            or (behind[:1].isascii() and behind[:1].isalpha())
        ):
            continue
        if sum(map(str.isdigit, text[: group.end()])) < 7:
            return None
        if is_valid(text[: group.end()]):
            return start, stop
    return None
