"""Answers that do not fit the JSON schema that the request gave.

Fails: the answer does not parse or does not fit. Skipped: no schema, the cases of `json_valid`, and schemas that
cannot be used, with the reason.
"""

from __future__ import annotations

import orjson

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.schemas import SchemaError, fault, validator
from palegreen.evaluators.checks.view import View


def check(view: View) -> Outcome | None:
    """Whether the answer fits its schema."""
    asked = view.sample.response_format or {}
    if not view.owes_json or asked.get("type") != "json_schema":
        return None
    holder = asked.get("json_schema", asked)  # the Responses API has the schema beside the type
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if schema is None:
        return None
    try:
        compiled = validator(schema)
    except SchemaError as refused:
        return Outcome(None, None, str(refused))
    if view.parsed is orjson.JSONDecodeError:
        return Outcome(False, None, "does not parse")
    found = fault(compiled, view.parsed)
    return Outcome(not found, None, found)
