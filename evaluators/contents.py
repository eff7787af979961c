"""JSON files that are named by what they say, so that one that was changed by hand is seen: baselines, references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_UNNAMED = ("id", "created")  # what an id is not made of


def identity(said: Mapping[str, Any]) -> str:
    """The id of a file as JSON has it: a hash of all that it says but its id and when it was made."""
    named = {name: value for name, value in said.items() if name not in _UNNAMED}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def problem(refused: ValidationError) -> str:
    """Where a file does not fit, and why: one line."""
    first = refused.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}"
