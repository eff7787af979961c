"""JSON schemas of requests, compiled once each. They come from whoever sends requests, so nothing in them is trusted:
no reference is fetched, patterns may not run away, and what is too large or too deep is refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs
import orjson

from palegreen.evaluators.checks.placeholders import held_by

MAX_BYTES = 64 << 10
_CACHED = 128
_NESTING = ("anyOf", "oneOf", "not")  # keywords whose error is of the whole, though a part of it may be at fault
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)


class SchemaError(ValueError):
    """A schema that cannot be used; says why in a few words, without quoting it."""


def validator(schema: Any) -> Any:
    """The compiled schema. Raises SchemaError."""
    try:
        source = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        raise SchemaError("the schema is no JSON or too deep") from None
    if len(source) > MAX_BYTES:
        raise SchemaError(f"the schema is larger than {MAX_BYTES >> 10} KiB")
    compiled = _compiled(source)
    if isinstance(compiled, str):
        raise SchemaError(compiled)
    return compiled


@lru_cache(maxsize=_CACHED)
def _compiled(source: bytes) -> Any:
    """The validator, or why there is none: both are remembered."""
    schema = orjson.loads(source)
    if not isinstance(schema, dict | bool):
        return "the schema is no object"
    try:
        return jsonschema_rs.validator_for(schema, retriever=_refuse, pattern_options=_PATTERNS)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return "the schema is not valid, too deep, or refers to another document"


def fault(compiled: Any, value: Any) -> str:
    """What is wrong with a value, by the keyword of the schema that it breaks; empty if it fits.

    What redaction put in place of a text need not be of a number's type or fit a pattern.
    """
    for error in compiled.iter_errors(value):
        name = error.kind.name
        if not ((isinstance(error.instance, str) or name in _NESTING) and held_by(error.instance)):
            return f"breaks {name} of the schema"
    return ""


def _refuse(_uri: str) -> NoReturn:
    raise ValueError("references to other documents are not followed")
