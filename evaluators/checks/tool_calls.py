"""Tool calls that nobody can carry out.

Fails: a name that was not declared, arguments that are no JSON object, arguments that break the declared parameters,
or a finish reason `tool_calls` without any call. The score is the share of calls that are right. Where no tools are
known, as taps may not tell them, a call fails only for arguments that are no JSON, and is skipped otherwise. Skipped:
no calls made, and calls that were cut. A schema that cannot be used counts as one that fits.
"""

from __future__ import annotations

from typing import Any

import orjson

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.schemas import SchemaError, fault, validator
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.sample import ToolCall


def check(view: View) -> Outcome | None:
    """Whether every call names a declared tool and has arguments that fit it."""
    sample = view.sample
    if not view.answered:
        return None
    if not sample.tools:
        broken = sum(_arguments(call) is orjson.JSONDecodeError for call in sample.tool_calls)
        return Outcome(False, 1 - broken / len(sample.tool_calls), "arguments are no JSON") if broken else None
    if not sample.tool_calls:
        missing = sample.finish_reason in ("tool_calls", "tool_use", "function_call")
        return Outcome(False, 0.0, "finished for a tool call, and there is none") if missing else None
    declared = {tool.get("name"): tool.get("parameters") for tool in sample.tools}
    faults = [found for call in sample.tool_calls if (found := _fault(call, declared))]
    score = 1 - len(faults) / len(sample.tool_calls)
    return Outcome(not faults, score, faults[0] if faults else "")


def _fault(call: ToolCall, declared: dict[Any, Any]) -> str:
    if call["name"] not in declared:
        return "calls a tool that was not declared"
    arguments = _arguments(call)
    if arguments is orjson.JSONDecodeError:
        return "arguments are no JSON"
    if not isinstance(arguments, dict):
        return "arguments are no object"
    parameters = declared[call["name"]]
    if not parameters:
        return ""
    try:
        found = fault(validator(parameters), arguments)
    except SchemaError:
        return ""
    return f"arguments: {found}" if found else ""


def _arguments(call: ToolCall) -> Any:
    """A call's arguments, of which none are an empty object; `orjson.JSONDecodeError` itself if they are no JSON."""
    try:
        return orjson.loads(call["arguments"].strip() or "{}")
    except orjson.JSONDecodeError:
        return orjson.JSONDecodeError
