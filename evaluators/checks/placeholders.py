"""What redaction leaves in a text, such as [EMAIL]: nothing that the model did, so no check fails for it."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]{0,30}\]")


def without(text: str) -> str:
    """A text with blanks in their place."""
    return _PLACEHOLDER.sub(" ", text) if "[" in text else text


def told_apart(text: str) -> str:
    """A text in which each of them is another word, as what stood there may have been."""
    if "[" not in text:
        return text
    numbers = count(1)
    return _PLACEHOLDER.sub(lambda _: f"_{next(numbers)}_", text)


def held_by(value: Any) -> bool:
    """Whether a JSON value holds one."""
    return _PLACEHOLDER.search(str(value)) is not None
