"""JSON of other people's programs: strict where it is whole, and as much as there is where its end is missing."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

import orjson

from palegreen.evaluators.wire.errors import WireError

_BOM = b"\xef\xbb\xbf"
_DEEPEST = 32  # levels that are followed to where a text was cut
_BLANK = re.compile(r"[ \t\r\n]*")
_HALF_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)\Z")
_ENDS_NUMBER = tuple(",]} \t\r\n")
_Utf8 = codecs.getincrementaldecoder("utf-8")
_read_whole = json.JSONDecoder(parse_constant=lambda _: None, strict=False).raw_decode


def loads(data: bytes, where: str, *, strict: bool = False) -> Any:
    """The value of a JSON text. NaN reads as null, half a surrogate pair and invalid UTF-8 as U+FFFD.

    Raises:
        WireError: not JSON; with `strict` also: not UTF-8.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _loads_lenient(data, where, strict)


def _loads_lenient(data: bytes, where: str, strict: bool) -> Any:
    """What Python's json writes and JavaScript's JSON.stringify, and orjson refuses."""
    try:
        text = data.removeprefix(_BOM).decode("utf-8", "strict" if strict else "replace")
        return _clean(json.loads(text, parse_constant=lambda _: None))
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise WireError(f"{where}: not UTF-8: {byte}; allowed: JSON in UTF-8, convert it with iconv") from None
    except json.JSONDecodeError as error:
        raise WireError(f"{where}: not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise WireError(f"{where}: not JSON: nested too deeply") from None
    except ValueError:  # a number of more than 4300 digits
        raise WireError(f"{where}: not JSON: a number that is too long") from None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value


def recovered(data: bytes, *, keep_cut: bool = True) -> dict[str, Any]:
    """What there is of a JSON object whose end is missing; empty if that is nothing.

    Text that was cut is given up to there; a number that was cut is left out, as more digits may have followed.
    Without `keep_cut` the value of the object's key within which it was cut is left out.
    """
    text = _Utf8("replace").decode(data.removeprefix(_BOM))  # half a character at the end is left out
    at = _skip(text, 0)
    try:
        return dict(_clean(_read_object(text, at, 0, keep_cut)[0])) if text[at : at + 1] == "{" else {}
    except RecursionError:
        return {}


def _read(text: str, at: int, depth: int) -> tuple[Any, int, bool]:
    """Value at `at`, where it ends, and whether it is whole. Raises ValueError if there is none."""
    try:
        value, end = _read_whole(text, at)
    except ValueError:
        opening = text[at : at + 1]
        if opening == '"':
            return _cut_string(text[at + 1 :]), len(text), False
        if opening not in ("{", "[") or depth == _DEEPEST:
            raise
        return _read_object(text, at, depth) if opening == "{" else _read_list(text, at, depth)
    if isinstance(value, (int, float)) and text[end : end + 1] not in _ENDS_NUMBER and not isinstance(value, bool):
        raise ValueError
    return value, end, True


def _cut_string(rest: str) -> str:
    half = _HALF_ESCAPE.search(rest)
    text = str(_read_whole(f'"{rest[: half.start(1)] if half else rest}"')[0])
    return text[:-1] if "\ud800" <= text[-1:] <= "\udbff" else text  # half a surrogate pair


def _read_object(text: str, at: int, depth: int, keep_cut: bool = True) -> tuple[dict[str, Any], int, bool]:
    found: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        try:
            key, at = _read_whole(text, at)
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                return found, at, False
            found[key], at, whole = _read(text, _skip(text, at + 1), depth + 1)
        except ValueError:
            return found, at, False
        if not whole:
            if not keep_cut:
                del found[key]
            return found, at, False
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    return found, at + 1, text[at : at + 1] == "}"


def _read_list(text: str, at: int, depth: int) -> tuple[list[Any], int, bool]:
    found: list[Any] = []
    at = _skip(text, at + 1)
    while at < len(text) and text[at] != "]":
        try:
            value, at, whole = _read(text, at, depth + 1)
        except ValueError:
            return found, at, False
        found.append(value)
        if not whole:
            return found, at, False
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    return found, at + 1, at < len(text)


def _skip(text: str, at: int) -> int:
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]  # matches always
