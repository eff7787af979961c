"""One sample as the checks see it: what several of them need is worked out once, when first asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from palegreen.evaluators.sample import Sample

_WORD = re.compile(r"\w+")


class View:
    """A redacted sample with its features.

    `vectors` are unit rows by what they embed: `response`, `prompt`, `context` (mean of the contexts'), each only if
    there was such a text and an embedder. `settings` is what the configuration says of each check, by name.
    `baseline` maps a channel to the quantiles of it in the baseline (issue of the fit), empty without one.
    """

    def __init__(
        self,
        sample: Sample,
        vectors: Mapping[str, NDArray[np.float32]] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        baseline: Mapping[str, Any] | None = None,
    ) -> None:
        self.sample = sample
        self.vectors = vectors or {}
        self.settings = settings or {}
        self.baseline = baseline or {}

    @cached_property
    def text(self) -> str:
        """The response without blanks around it."""
        return self.sample.response.strip()

    @cached_property
    def prompt(self) -> str:
        """The last thing the user said."""
        return self.sample.prompt

    @cached_property
    def context(self) -> str:
        """The contexts (retrieved passages), joined by blank lines."""
        return "\n\n".join(self.sample.contexts)

    @cached_property
    def words(self) -> list[str]:
        """Words of the response, in lower case."""
        return _WORD.findall(self.text.lower())

    @cached_property
    def prompt_words(self) -> frozenset[str]:
        """Distinct words of the prompt, in lower case."""
        return frozenset(_WORD.findall(self.prompt.lower()))

    @cached_property
    def context_words(self) -> frozenset[str]:
        """Distinct words of the contexts, in lower case."""
        return frozenset(_WORD.findall(self.context.lower()))

    @cached_property
    def wants_json(self) -> bool:
        """Whether the request asked for JSON (`response_format`)."""
        kind = (self.sample.response_format or {}).get("type")
        return kind in ("json_object", "json_schema")

    @cached_property
    def parsed(self) -> Any:
        """The response as JSON; `orjson.JSONDecodeError` itself (the class) if it is none."""
        try:
            return orjson.loads(self.text)
        except orjson.JSONDecodeError:
            return orjson.JSONDecodeError

    def cosine(self, one: str, other: str) -> float | None:
        """Cosine of two of the vectors, None if one is absent."""
        if one not in self.vectors or other not in self.vectors:
            return None
        return float(self.vectors[one] @ self.vectors[other])
