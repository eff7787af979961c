"""Which fields of a sample hold what: text, an id that others refer to, or a structure of texts."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, cast

from palegreen.evaluators.sample import Message, Sample, ToolCall

_TEXTS = (
    *("response", "reasoning", "error", "model", "requested_model", "endpoint", "route", "replica"),
    *("finish_reason", "system_fingerprint", "tap"),
)
_IDENTIFIERS = ("id", "session", "team", "trace_id")
_HASHED = re.compile(r"redacted-[a-p]{16}")
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")  # digits might look like a number of something
_SURROGATE = re.compile("[\ud800-\udfff]")
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_DEEPEST = 64


class Texts(Protocol):
    """What redacts single texts."""

    def text(self, text: str) -> str:
        """A text, redacted."""
        ...

    def suspects(self, text: str) -> bool:
        """Whether there may be something to redact."""
        ...

    def entry(self, key: str, value: str) -> str:
        """The value of a key, redacted."""
        ...


def _strings(sample: Sample) -> list[str]:
    """All texts of a sample, those of a key as `key: text`."""
    strings = [value for name in (*_TEXTS, *_IDENTIFIERS) if (value := getattr(sample, name))]
    strings += sample.contexts
    for message in sample.messages:
        strings.append(message["content"])
        if len(message) > 2:
            strings += _strings_of({**message, "content": ""})
        elif message["role"] not in _ROLES:
            strings.append(message["role"])
    if sample.tool_calls or sample.tools or sample.labels or sample.response_format:
        strings += _strings_of([sample.tool_calls, sample.tools, sample.labels, sample.response_format])
    return strings


def _strings_of(structure: Any) -> Iterator[str]:
    waiting = [("", structure)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((key, item) for item in value)
        elif value is not None:
            yield f"{key}: {value}" if key else str(value)


class SampleFields:
    """Applies a redaction of texts to all of a sample."""

    def __init__(self, texts: Texts, key: bytes | None) -> None:
        self._texts = texts
        self._key = key or secrets.token_bytes(32)

    def redacted(self, sample: Sample) -> Sample:
        """`sample`, or a copy of it where something had to go."""
        if not self._texts.suspects(_SURROGATE.sub("\ufffd", "\n".join(_strings(sample)))):
            return sample
        text, changed = self._texts.text, dict[str, Any]()
        for name in _TEXTS:
            if (value := getattr(sample, name)) and (new := text(value)) != value:
                changed[name] = new
        for name in _IDENTIFIERS:
            if (value := getattr(sample, name)) and (new := self.identifier(value)) != value:
                changed[name] = new
        if sample.messages:
            changed["messages"] = [self._message(message) for message in sample.messages]
        if sample.tool_calls:
            changed["tool_calls"] = [self._tool_call(call) for call in sample.tool_calls]
        if sample.contexts:
            changed["contexts"] = [text(context) for context in sample.contexts]
        if sample.tools:
            changed["tools"] = [self._value(tool) for tool in sample.tools]
        if sample.response_format:
            changed["response_format"] = self._value(sample.response_format)
        if sample.labels:
            changed["labels"] = {text(key): self._texts.entry(key, value) for key, value in sample.labels.items()}
        return replace(sample, **changed) if changed else sample

    def identifier(self, value: str) -> str:
        """`value`, or `redacted-` and a keyed hash of it if it is, or has in it, what must go."""
        if self._texts.text(value) == value or _HASHED.fullmatch(value):
            return value
        digest = hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]
        return "redacted-" + digest.translate(_LETTERS)

    def _message(self, message: Message) -> Message:
        new: dict[str, Any] = {}
        for field, value in cast(Mapping[str, Any], message).items():
            if field == "tool_calls":
                new[field] = [self._tool_call(call) for call in value]
            elif field == "tool_call_id":
                new[field] = self.identifier(value)
            else:
                new[field] = self._texts.text(value)
        return cast(Message, new)

    def _tool_call(self, call: ToolCall) -> ToolCall:
        new = ToolCall(name=self._texts.text(call["name"]), arguments=self._texts.text(call["arguments"]))
        if "id" in call:
            new["id"] = self.identifier(call["id"])
        return new

    def _value(self, value: Any, key: str = "", depth: int = 0) -> Any:
        """A structure as JSON gives it; what lies deeper than anybody nests becomes `[NESTED]`."""
        if isinstance(value, str):
            return self._texts.entry(key, value)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float):
            redacted = self._texts.entry(key, str(value))
            return value if redacted == str(value) else redacted
        if depth >= _DEEPEST:
            return "[NESTED]"
        if isinstance(value, dict):
            return {(name := self._texts.text(k)): self._value(v, name, depth + 1) for k, v in value.items()}
        return [self._value(item, key, depth + 1) for item in value]
