"""IP addresses, v4 and v6, but not versions, numbers of sections, times or scope operators of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network

from palegreen.evaluators.redact.finder import Finder, Span, after, before, compiled

# What makes four numbers with dots a version or the number of a section; a match that begins so is no address.
_NUMBERED = (
    r"(?:\b(?:v|ver|version|versión|versione|versão|versie|wersja|verze|release|rel|rev|revision|"
    r"build|firmware|driver|patch|upgrade|section|sec|sect|chapter|clause|article|appendix|step|kapitel|abschnitt|abs|"
    r"chapitre|sección|capítulo)[.:]?|версия|версии|версию|раздел|глава|пункт|§|版本|版|バージョン|버전|[=<>~^]=|[a-zA-Z]-)"
    r"[\"']?\s{0,4}[:=#]?\s{0,4}[\"'(]?v?"
)
_V4 = compiled(rf"(?i)(?:{_NUMBERED})?\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}")
# Products of User-Agent and Server (RFC 9110) with versions of four numbers. Not any word: hosts stand before a slash,
# too, as Java writes addresses (broker/10.0.0.1:9092).
_PRODUCT = re.compile(
    rb"(?i)\b(?:nginx|apache|openresty|tengine|(?:microsoft-)?iis|chrom(?:e|ium)|headlesschrome|crios|edg(?:e|a|ios)?|"
    rb"opr|opera|firefox|fxios|safari|applewebkit|mozilla|brave|vivaldi|yabrowser|samsungbrowser|electron|curl|wget|"
    rb"openssl|python|php)/\Z"
)
_V6 = compiled(r"[0-9A-Fa-f:]*(?:::|(?:[0-9A-Fa-f]{1,4}:){7})[0-9A-Fa-f:.]*")

# IANA IPv6 special-purpose and global unicast registries. Whatever lies elsewhere (dead::beef, 1::2 as a slice of an
# array, ::1) is no address that leads to anybody.
_V6_NETWORKS = tuple(
    map(IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10", "ff00::/8", "64:ff9b::/96", "::ffff:0:0/96"))
)


def _is_v4(data: bytes, start: int, end: int) -> bool:
    try:
        address = IPv4Address(data[start:end].decode())
    except AddressValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.packed[0] == 255:  # nobody's, and netmasks
        return False
    ahead, behind = before(data, start), after(data, end, 2)
    if _PRODUCT.search(data[max(0, start - 20) : start]) and behind[:1] != ":":
        return False
    return not (_is_word(ahead) or ahead == "." or _is_word(behind[:1]) or (behind[:1] == "." and behind[1:].isdigit()))


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def _v6_span(data: bytes, start: int, end: int) -> Span | None:
    """The address in a run of its characters, without the punctuation around it."""
    while data[end - 1 : end] == b".":
        end -= 1
    if data[start : start + 1] == b":" and data[start + 1 : start + 2] != b":":
        start += 1
    if data[end - 1 : end] == b":" and data[end - 2 : end - 1] != b":":
        end -= 1
    if not 3 <= end - start <= 45:
        return None
    try:
        address = IPv6Address(data[start:end].decode())
    except AddressValueError:
        return None
    if _is_word(before(data, start)) or _is_word(after(data, end)):
        return None
    return (start, end) if any(address in network for network in _V6_NETWORKS) else None


def _find(data: bytes) -> Iterator[Span]:
    for match in _V4.finditer(data):
        start, end = match.span()
        if 48 <= data[start] < 58 and _is_v4(data, start, end):
            yield start, end
    for match in _V6.finditer(data):
        if span := _v6_span(data, *match.span()):
            yield span


FINDER = Finder("ip", r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}:){7}", _find)
