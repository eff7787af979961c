"""Answers that are not the JSON that was asked for (`response_format` json_object or json_schema).

Fails: the answer does not parse, or json_object was asked for and it is no object; a fenced code block around JSON does
not parse either, for whoever reads it. Skipped: no JSON asked for, refusals by field, tool calls alone, and responses
that the client or a limit of the tap cut. One that the model's own limit of tokens cut fails: it is what users get.
"""

from __future__ import annotations

import orjson

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View


def check(view: View) -> Outcome | None:
    """Whether the answer is JSON."""
    if not view.owes_json:
        return None
    if view.parsed is orjson.JSONDecodeError:
        return Outcome(False, None, "in a code fence" if view.text.startswith("```") else "does not parse")
    asked = (view.sample.response_format or {}).get("type")
    if asked == "json_object" and not isinstance(view.parsed, dict):
        return Outcome(False, None, "no object")
    return Outcome(True)
