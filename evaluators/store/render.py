"""Samples as a person reads them on a terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from palegreen.evaluators.store.query import Stored

PREVIEW = 80
MOST = (12, 19, 24, 28)  # columns of the terminal that each column but the last takes
_FACTS = ("id", "model", "requested_model", "endpoint", "route", "replica", "session", "team", "trace_id", "tap")
_DETAILS = ("system_fingerprint", "embedder", "sampled", "status", "ended", "error", "finish_reason", "feedback")


def table(found: Sequence[Stored], width: int) -> str:
    """One line a sample, none wider than `width` columns of a terminal."""
    rows = [("SAMPLE", "TIME (UTC)", "MODEL", "RESULT", "RESPONSE")]
    for stored in found:
        result = f"{stored.result}: {', '.join(stored.failed)}" if stored.failed else stored.result
        rows.append(
            (f"@{stored.seq}", _time(stored.time), " ".join(_clean(stored.model).split()), result, preview(stored))
        )
    columns = list(zip(*rows, strict=True))[:-1]
    widths = [min(most, max(map(_columns, column))) for most, column in zip(MOST, columns, strict=True)]
    return "\n".join(_line(row, widths, width) for row in rows)


def summary(stored: Stored) -> dict[str, Any]:
    """The same for programs."""
    names = ("time", "model", "endpoint", "replica", "sampled", "result", "failed", "feedback")
    return {
        "sample": f"@{stored.seq}",
        "id": stored.id,
        **{name: getattr(stored, name) for name in names},
        "session": stored.record.get("session", ""),
        "trace_id": stored.record.get("trace_id", ""),
        "preview": preview(stored),
    }


def preview(stored: Stored) -> str:
    """The beginning of the response, or the tools that it calls, on one line."""
    return excerpt(stored.record.get("response", ""), PREVIEW) or excerpt(" ".join(_calls(stored.record)), PREVIEW)


def excerpt(text: str, width: int) -> str:
    """The beginning of a text on one line, in at most `width` columns of a terminal."""
    return _clipped(_clean(" ".join(text[: 4 * width].split())), width)


def page(stored: Stored) -> str:
    """Everything of one sample."""
    return "\n".join(_page(stored))


def _page(stored: Stored) -> Iterator[str]:
    record = stored.record
    yield from _pairs({"sample": f"@{stored.seq}", "time": f"{_time(stored.time)} UTC", "result": stored.result})
    yield from _pairs({name: record.get(name) for name in (*_FACTS, *_DETAILS)})
    yield from _pairs(record.get("labels") or {})
    yield from _pairs({"tokens": _tokens(record), "timing": _timing(record)})
    yield from _pairs({"tools": ", ".join(str(tool.get("name", "?")) for tool in record.get("tools") or ())})
    if record.get("truncated"):
        yield "truncated         text is missing that the client got: it was longer than body_limit"
    for message in record.get("messages") or ():
        yield from _section(message.get("role", "?"), [message.get("content", ""), *_calls(message)])
    for number, context in enumerate(record.get("contexts") or (), 1):
        yield from _section(f"context {number}", [context])
    if record.get("reasoning"):
        yield from _section("reasoning", [record["reasoning"]])
    yield from _section("response", [record.get("response", ""), *_calls(record)])
    yield from _section("checks", _checks(record.get("scores") or {}))


def _checks(scores: dict[str, Any]) -> Iterator[str]:
    """Failures first, what does not apply last."""
    rank = {False: 0, True: 1, None: 2}
    applied = {name: score for name, score in scores.items() if score is not None}
    for name, score in sorted(applied.items(), key=lambda item: rank[item[1].get("passed")]):
        word = {False: "FAIL", True: "pass", None: ""}[score.get("passed")]
        number = "" if score.get("score") is None else f"{score['score']:.3g}"
        yield f"{word:5} {name:20} {number:6} {score.get('why', '')}".rstrip()
    if skipped := sorted(scores.keys() - applied.keys()):
        yield f"does not apply: {', '.join(skipped)}"


def _tokens(record: dict[str, Any]) -> str:
    usage = record.get("usage") or {}
    counts = {"in": usage.get("prompt_tokens"), "cached": record.get("cached_tokens")}
    counts |= {"out": usage.get("completion_tokens"), "reasoning": record.get("reasoning_tokens")}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count is not None)


def _timing(record: dict[str, Any]) -> str:
    times = {"first token": record.get("ttft_seconds"), "all": record.get("duration_seconds")}
    return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in times.items() if seconds is not None)


def _calls(holder: dict[str, Any]) -> Iterator[str]:
    for call in holder.get("tool_calls") or ():
        yield f"-> {call.get('name', '?')}({call.get('arguments', '')})"


def _section(title: str, texts: Iterable[str]) -> Iterator[str]:
    yield f"\n[{_clean(title)}]"
    yield from (_clean(text) for text in texts if text)


def _pairs(pairs: dict[str, Any]) -> Iterator[str]:
    for name, value in pairs.items():
        if value not in (None, ""):
            yield f"{_clean(name):17} {_clean(value if isinstance(value, str) else json.dumps(value))}"


def _line(row: Sequence[str], widths: Sequence[int], width: int) -> str:
    cells = [_padded(_clipped(_clean(cell), most), most) for cell, most in zip(row, widths, strict=False)]
    return _clipped("  ".join([*cells, row[-1]]), width).rstrip()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _clean(text: str) -> str:
    """The text without what would command a terminal or turn the direction of writing."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _columns(text: str) -> int:
    return sum(map(_width, text))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _clipped(text: str, width: int) -> str:
    """The text in at most `width` columns."""
    if _columns(text) <= width:
        return text
    kept, used = [], 1
    for char in text:
        used += _width(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + "…"
