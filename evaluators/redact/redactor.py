"""Redaction of texts and samples: everything after it, features, checks and store, sees what it gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import re2

from palegreen.evaluators.config import RedactionConfig
from palegreen.evaluators.redact import card, email, ip, names, own, phone, secret
from palegreen.evaluators.redact.fields import SampleFields
from palegreen.evaluators.redact.finder import Finder, options
from palegreen.evaluators.redact.folding import fold
from palegreen.evaluators.redact.jsontext import is_json, rewrite
from palegreen.evaluators.sample import Sample
from palegreen.runtime.yamlfile import ConfigError

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = r"\\[u/nrtbf]"
_BLANKS = re.compile(r"\\[/nrtbf]")
_MARKS = ("[SECRET]", "[EMAIL]", "[CARD]", "[IP]", "[PHONE]", "[NAME]")
_FENCE = "```"
_PASSES = 8  # what one replacement uncovers, the next pass finds; two passes are the rule
_LEAD = 64  # characters of a JSON key that count as context of its value


class Redactor:
    """Takes out of texts what a configuration names.

    What is taken out is replaced by its kind in brackets, `[EMAIL]`; such a placeholder is never touched again, so
    that redacting twice changes nothing. JSON stays JSON. `counts` holds the replaced places by kind.

    Args:
        config: kinds to look for, names and patterns of one's own.
        key: key of the hashes that stand for session ids and the like; random if not given, so that hashes of two
            redactors differ.

    Raises:
        ConfigError: a pattern, the region or the file of names cannot be used; one line.
    """

    def __init__(self, config: RedactionConfig, key: bytes | None = None) -> None:
        self._finders = _finders(config)
        self._escapes = len(self._finders)
        self._hints = _hints([finder.hint for finder in self._finders])
        self._marks = [f"[{finder.kind.upper()}]" for finder in self._finders]
        self._placeholder = re.compile("(" + "|".join(map(re.escape, sorted({*self._marks, *_MARKS}))) + ")")
        self._fields = SampleFields(self, key)
        self._secrets = config.secrets
        self.counts = {finder.kind: 0 for finder in self._finders}

    def text(self, text: str) -> str:
        """`text` without what was found in it; a text that was JSON still is."""
        if not text.isascii():
            text = _SURROGATE.sub("\ufffd", text)
        if not self.suspects(text):
            return text
        return self._settled(text, self._pass)

    def entry(self, key: str, value: str) -> str:
        """The value of a key, such as a label's: what the key says of it counts."""
        if not value.isascii():
            value = _SURROGATE.sub("\ufffd", value)
        return self._settled(value, lambda value: self._scalar(key, value, False))

    def suspects(self, text: str) -> bool:
        """Whether there may be something to redact in a text, or in any of several joined by line ends."""
        hits = self._hints.Match(fold(text).data)
        if hits != [self._escapes]:
            return bool(hits)
        # Escapes of JSON may hide the edge of a word, or any character: those that only do the former are blanks here.
        return "\\u" in text or bool(self._hints.Match(fold(_BLANKS.sub(" ", text)).data))

    def sample(self, sample: Sample) -> Sample:
        """A sample with every text of it redacted; the same one if nothing was found."""
        return self._fields.redacted(sample)

    def identifier(self, value: str) -> str:
        """An id that others refer to: unchanged, or a keyed hash as a whole if anything in it had to go."""
        return self._fields.identifier(value)

    def _settled(self, text: str, once: Callable[[str], str]) -> str:
        for _ in range(_PASSES):
            redacted = once(text)
            if redacted == text:
                break
            text = redacted
        return text

    def _pass(self, text: str) -> str:
        if is_json(text):
            return rewrite(text, self._scalar)
        parts = text.split(_FENCE)
        return _FENCE.join(self._block(part) if at % 2 else self._plain(part) for at, part in enumerate(parts))

    def _block(self, text: str) -> str:
        """What stands between code fences."""
        language, newline, body = text.partition("\n")
        if newline and is_json(body):
            return language + newline + rewrite(body, self._scalar)
        return self._plain(text)

    def _scalar(self, key: str, value: str, is_key: bool) -> str:
        """A string or number of JSON, after its key."""
        if value[:1] in ("{", "[") and is_json(value):
            return rewrite(value, self._scalar)
        if is_key or not key or "[" in key:
            return self._plain(value)
        if self._secrets and secret.guards(key) and not secret.is_stand_in(value):
            self.counts["secret"] += 1
            return "[SECRET]"
        return self._plain(value, f"{key[-_LEAD:]}: ")

    def _plain(self, text: str, lead: str = "") -> str:
        parts = self._placeholder.split(text)
        if len(parts) > 1 and not self._hints.Match(fold("\n".join((lead + parts[0], *parts[2::2]))).data):
            return text
        parts[0] = self._piece(parts[0], lead)
        for at in range(2, len(parts), 2):
            parts[at] = self._piece(parts[at], "")
        return "".join(parts)

    def _piece(self, text: str, lead: str) -> str:
        """One pass over a text without placeholders; `lead` is context before it."""
        folded = fold(lead + text)
        hits = self._hints.Match(folded.data)
        if not hits:
            return text
        first = len(lead.encode())
        spans = sorted(
            (*folded.place(span), rank)
            for rank in hits
            if rank != self._escapes
            for span in self._finders[rank].find(folded.data)
        )
        pieces: list[str] = []
        at = first
        for start, end, rank in _united(spans):
            if end > at:
                pieces += (folded.source[at : max(at, start)].decode(), self._marks[rank])
                self.counts[self._finders[rank].kind] += 1
                at = end
        return "".join((*pieces, folded.source[at:].decode())) if pieces else text


def _united(spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Spans in order, those that overlap as one of the first kind among them."""
    united: list[tuple[int, int, int]] = []
    for start, end, rank in spans:
        if united and start < united[-1][1]:
            before = united[-1]
            united[-1] = (before[0], max(before[1], end), min(before[2], rank))
        else:
            united.append((start, end, rank))
    return united


def _finders(config: RedactionConfig) -> list[Finder]:
    """In the order in which a kind names what several of them found."""
    found = []
    for at, pattern in enumerate(config.patterns):
        try:
            found.append(own.finder(pattern))
        except ValueError as error:
            raise ConfigError(f"redaction.patterns[{at}] ({pattern.name}): {error}") from None
    built_in = ((config.secrets, secret.FINDER), (config.emails, email.FINDER), (config.cards, card.FINDER))
    found += [finder for wanted, finder in (*built_in, (config.ips, ip.FINDER)) if wanted]
    if config.phones:
        try:
            found.append(phone.finder(config.phone_region))
        except ValueError as error:
            raise ConfigError(f"redaction.phone_region: {error}") from None
    listed = with_names(config).names
    if any(name.strip() for name in listed):
        try:
            found.append(names.finder(listed))
        except re2.error:
            raise ConfigError(f"redaction.names: {len(listed)} names are more than can be looked for") from None
    return found


def with_names(config: RedactionConfig) -> RedactionConfig:
    """The configuration with the names of its file in it, for a machine that has no such file. Raises ConfigError."""
    if config.names_file is None:
        return config
    return config.model_copy(update={"names": [*config.names, *_names_of(config.names_file)], "names_file": None})


def _names_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"redaction.names_file: {path} is not text; allowed: UTF-8, one name a line") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"redaction.names_file: {path} cannot be read: {reason}") from None


def _hints(patterns: Sequence[str]) -> re2.Set:
    hints = re2.Set.SearchSet(options(sum(map(len, patterns))))
    for pattern in (*patterns, _ESCAPE):
        hints.Add(pattern)
    hints.Compile()
    return hints
