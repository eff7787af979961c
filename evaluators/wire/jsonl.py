"""Recorded samples: JSON lines, one choice a line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any, get_args

import orjson

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Ended, Observation, Sample, Sampled
from palegreen.evaluators.wire import message
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import loads
from palegreen.evaluators.wire.shape import count, number, text

_LATEST = 1e11  # epoch seconds of the year 5138: what is beyond is in milliseconds
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


class _RefusedError(ValueError):
    """What is allowed instead."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _RefusedError("a text")
    return value


def _whole(value: Any) -> int:
    if (found := count(value)) is None:
        raise _RefusedError("a whole number, 0 or more")
    return found


def _number(value: Any) -> float:
    if (found := number(value)) is None:
        raise _RefusedError("a number")
    return found


def _seconds(value: Any) -> float:
    try:
        if (found := _number(value)) >= 0:
            return found
    except _RefusedError:
        pass
    raise _RefusedError("seconds, 0 or more")


def _time(value: Any) -> float:
    try:
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).timestamp()
        if (found := _seconds(value)) < _LATEST:
            return found
    except (ValueError, OverflowError):
        pass
    raise _RefusedError("RFC 3339 with its offset, such as 2026-01-31T12:00:00Z, or epoch seconds")


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _RefusedError("true or false")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _RefusedError("an object")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _RefusedError("a list of texts")
    return value


def _numbers(value: Any) -> list[float]:
    if not isinstance(value, list):
        raise _RefusedError("a list of numbers")
    try:
        return [_number(item) for item in value if item is not None]
    except _RefusedError:
        raise _RefusedError("a list of numbers") from None


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _RefusedError("an object of texts")
    return value


def _messages(value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) and text(item.get("role")) for item in value):
        raise _RefusedError("a list of objects with a role")
    if not all(isinstance(item.get("content"), (str, list, type(None))) for item in value):
        raise _RefusedError("messages whose content is a text or a list of parts")
    return message.messages(value)


def _tool_calls(value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _RefusedError("a list of objects with name and arguments")
    return message.tool_calls({"tool_calls": value})


def _tools(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _RefusedError("a list of objects with name, description and parameters")
    return message.tools(value)


def _one_of(allowed: Any) -> Callable[[Any], Any]:
    names = get_args(allowed)

    def check(value: Any) -> Any:
        if value not in names:
            raise _RefusedError(", ".join(names))
        return value

    return check


_READERS: dict[str, Callable[[Any], Any]] = {
    "response": _text,
    "id": _text,
    "time": _time,
    "model": _text,
    "endpoint": _text,
    "route": _text,
    "replica": _text,
    "session": _text,
    "team": _text,
    "trace_id": _text,
    "messages": _messages,
    "tools": _tools,
    "response_format": _object,
    "contexts": _texts,
    "tool_calls": _tool_calls,
    "finish_reason": _text,
    "logprobs": _numbers,
    "mean_logprob": _number,
    "ttft_seconds": _seconds,
    "duration_seconds": _seconds,
    "labels": _labels,
    "system_fingerprint": _text,
    "sampled": _one_of(Sampled),
    "tap": _text,
    "choice": _whole,
    "requested_model": _text,
    "reasoning": _text,
    "reasoning_tokens": _whole,
    "cached_tokens": _whole,
    "status": _whole,
    "error": _text,
    "ended": _one_of(Ended),
    "truncated": _truth,
    "refused": _truth,
}
_USAGE = ("prompt_tokens", "completion_tokens")
_NAMES = tuple(field.name for field in fields(Sample) if field.name not in _USAGE)
_BLANK = Sample(response="")


def read(line: bytes | str, where: str = "line") -> Sample:
    """The sample of one line. null reads as absent, keys that are not known are passed over.

    Args:
        line: JSON, UTF-8.
        where: names the line in errors, such as `samples.jsonl:17`.

    Raises:
        WireError: `where: key: problem; allowed: ...`.
    """
    return of_record(parsed(line if isinstance(line, bytes) else line.encode("utf-8", "replace"), where), where)


def parsed(line: bytes, where: str) -> Any:
    """The record of one line, not yet looked at.

    Text of another encoding is refused: read with U+FFFD in it, each of its samples would be one that is garbled.

    Raises:
        WireError: not UTF-8, or not JSON.
    """
    return loads(line, where, strict=True)


def of_record(record: Any, where: str) -> Sample:
    """The sample of one record, as a line, the store and Parquet hold it. Raises WireError like `read`."""
    if not isinstance(record, dict):
        raise WireError(f"{where}: is no JSON object; allowed: an object with at least response")
    if record.get("response") is None:
        raise WireError(f"{where}: response: is missing; allowed: a text, empty where there is none")
    given: dict[str, Any] = {}
    for key, value in record.items():
        if value is not None and (reader := _READERS.get(key)) is not None:
            given[key] = _checked(reader, value, where, key)
    if (usage := record.get("usage")) is not None:
        counts = _checked(_object, usage, where, "usage")
        for key in _USAGE:
            if (value := counts.get(key)) is not None:
                given[key] = _checked(_whole, value, where, f"usage.{key}")
    if (logprobs := given.get("logprobs")) and "mean_logprob" not in given:
        given["mean_logprob"] = sum(logprobs) / len(logprobs)
    return Sample(**given)


def _checked(reader: Callable[[Any], Any], value: Any, where: str, key: str) -> Any:
    try:
        return reader(value)
    except _RefusedError as refused:
        raise WireError(f"{where}: {key}: is not valid; allowed: {refused}") from None


def to_record(sample: Sample) -> dict[str, Any]:
    """The sample's recorded form. What is unknown is left out; times are epoch seconds."""
    record: dict[str, Any] = {"response": sample.response}
    for name in _NAMES:
        value = getattr(sample, name)
        if value != getattr(_BLANK, name):
            record[name] = value
    usage = {name: value for name in _USAGE if (value := getattr(sample, name)) is not None}
    if usage:
        record["usage"] = usage
    return record


def write(sample: Sample) -> bytes:
    """One line, without its end.

    Raises:
        WireError: tools or a response_format that JSON writers refuse (nested more than 250 levels).
    """
    try:
        return orjson.dumps(to_record(sample))
    except orjson.JSONEncodeError:
        raise WireError(f"sample {sample.id[:100]!r}: cannot be written as JSON") from None


def decode(envelope: Envelope, defaults: Defaults) -> list[Observation]:
    """The sample of one line that a tap read; none of a blank line. Raises WireError."""
    meta, parts = envelope
    if len(parts) != 1:
        raise WireError(f"jsonl: {len(parts)} parts; allowed: 1, the line")
    if not parts[0].strip():
        return []
    sample = read(parts[0], f"{meta.get('file', 'line')}:{meta.get('line', '?')}")
    sample.time = sample.time or meta.get("time") or 0.0
    sample.model = sample.model or defaults.model
    sample.endpoint = sample.endpoint or defaults.endpoint
    sample.replica = sample.replica or defaults.replica
    sample.tap = text(meta.get("tap"))
    return [sample]
