"""One sample as the checks see it: what several of them need is worked out once, when first asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from palegreen.evaluators.checks.lid import Language, language_of
from palegreen.evaluators.checks.placeholders import without
from palegreen.evaluators.checks.scripts import letters_by_script, unspaced
from palegreen.evaluators.sample import Sample

WORD = re.compile(r"\w+")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_THINK = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
FAILED = frozenset(("error", "ERROR"))
"""Finish reasons of a request that failed (Responses API as `wire` has it, OpenRouter)."""
ABORTED = frozenset(("abort", "aborted", "cancelled", "canceled"))
"""Finish reasons of a request that was given up (vLLM and SGLang, gateways)."""
_READ = 20_000  # characters of a text that a check reads at most; a loop or a wrong script is plain long before


class View:
    """A redacted sample with its features.

    `vectors` are unit rows by what they embed: `response`, `prompt`, `context` (mean of the contexts'), each only if
    there was such a text and an embedder. `baseline` maps a channel to its quantiles in the baseline, as
    `{"0.5": value, ...}` by probability; empty without one.
    """

    def __init__(
        self,
        sample: Sample,
        vectors: Mapping[str, NDArray[np.float32]] | None = None,
        baseline: Mapping[str, Any] | None = None,
    ) -> None:
        self.sample = sample
        self.vectors = vectors or {}
        self.baseline = baseline or {}

    @cached_property
    def answered(self) -> bool:
        """Whether the model ended its answer itself and all of it is here: no error, abort or cut."""
        sample = self.sample
        return (
            sample.ended == "complete"
            and not sample.error
            and not sample.truncated
            and sample.finish_reason not in FAILED
            and sample.finish_reason not in ABORTED
            and (sample.status is None or sample.status < 400)
        )

    @cached_property
    def reasoning(self) -> str:
        """What the model thought before it answered: the field, else a leading <think> block of the response."""
        if self.sample.reasoning:
            return self.sample.reasoning
        thought = _THINK.match(self.sample.response)
        return thought[1] if thought else ""

    @cached_property
    def text(self) -> str:
        """The answer: the response without blanks around it and without a leading <think> block."""
        thought = _THINK.match(self.sample.response)
        return (self.sample.response[thought.end() :] if thought else self.sample.response).strip()

    @cached_property
    def unfenced(self) -> str:
        """The answer's first 20,000 characters without fenced code."""
        text = self.text[:_READ]
        return _FENCE.sub("\n", text) if "```" in text else text

    @cached_property
    def prose(self) -> str:
        """The answer's first 20,000 characters without fenced code and redaction's placeholders, such as [EMAIL]."""
        return without(self.unfenced)

    @cached_property
    def prompt(self) -> str:
        """The last thing the user said."""
        return self.sample.prompt

    @cached_property
    def system(self) -> str:
        """System and developer messages, joined by blank lines."""
        return self.sample.system

    @cached_property
    def others(self) -> list[str]:
        """What was given by others than the operator: users' and tools' messages, earlier answers, contexts."""
        messages = self.sample.messages
        return [m["content"] for m in messages if m["role"] not in ("system", "developer")] + self.sample.contexts

    @cached_property
    def context(self) -> str:
        """The contexts (retrieved passages), joined by blank lines."""
        return "\n\n".join(self.sample.contexts)

    @cached_property
    def grounding(self) -> str:
        """What the answer is to rest on: the contexts, else the results of tools since the user's last message.

        Tools that search deliver their passages so. What is older, or the system prompt's, grounds too (`given`), but
        makes no answer one that must be grounded.
        """
        if self.sample.contexts:
            return self.context
        results: list[str] = []
        for message in reversed(self.sample.messages):
            if message["role"] == "user":
                break
            if message["role"] in ("tool", "function"):
                results.insert(0, message["content"])
        return "\n\n".join(results)

    @cached_property
    def given(self) -> str:
        """Everything that the model was given: messages of every role and contexts."""
        return "\n\n".join([*(message["content"] for message in self.sample.messages), *self.sample.contexts])

    @cached_property
    def words(self) -> list[str]:
        """Words of the answer's prose, in lower case."""
        return WORD.findall(self.prose.lower())

    @cached_property
    def word_count(self) -> int:
        """Words of the whole answer; where a script has no blanks (Chinese, Japanese, Thai), each letter is one."""
        text = self.text
        count = len(WORD.findall(text))
        return count if text.isascii() else count + unspaced(text)

    @cached_property
    def scripts(self) -> dict[str, int]:
        """Letters of the answer's prose by script."""
        return letters_by_script(self.prose)

    @cached_property
    def given_words(self) -> frozenset[str]:
        """Distinct words of all that was given, in lower case."""
        return frozenset(WORD.findall(self.given.lower()))

    @cached_property
    def terms(self) -> frozenset[str]:
        """Content words of the answer, see `terms_of`."""
        return terms_of(self.prose, self.words)

    @cached_property
    def prompt_terms(self) -> frozenset[str]:
        """Content words of the prompt."""
        return terms_of(self.prompt)

    @cached_property
    def context_terms(self) -> frozenset[str]:
        """Content words of the contexts."""
        return terms_of(self.context)

    @cached_property
    def language(self) -> Language | None:
        """Language of the answer's prose, None if it is too short or too unclear to say."""
        return language_of(self.prose)

    @cached_property
    def wants_json(self) -> bool:
        """Whether the request asked for JSON (`response_format`)."""
        kind = (self.sample.response_format or {}).get("type")
        return kind in ("json_object", "json_schema")

    @cached_property
    def owes_json(self) -> bool:
        """Whether the answer must be JSON: asked for, complete, not refused, and not a tool call in its place."""
        sample = self.sample
        return self.wants_json and self.answered and not sample.refused and bool(self.text or not sample.tool_calls)

    @cached_property
    def parsed(self) -> Any:
        """The answer as JSON; `orjson.JSONDecodeError` itself (the class) if it is none."""
        try:
            return orjson.loads(self.text)
        except orjson.JSONDecodeError:
            return orjson.JSONDecodeError

    def cosine(self, one: str, other: str) -> float | None:
        """Cosine of two of the vectors, None if one is absent or all zero (an empty text)."""
        if one not in self.vectors or other not in self.vectors:
            return None
        a, b = self.vectors[one], self.vectors[other]
        cosine = float(a @ b)
        return cosine if cosine and np.isfinite(cosine) else None


_PAIR = re.compile(r"(?=([^\W\d_]{2}))")


def terms_of(text: str, words: Iterable[str] | None = None) -> frozenset[str]:
    """Content words in lower case: numbers and words of four letters or more; pairs of letters where words have no
    blanks between them. `words` are the text's, where they are known already.
    """
    text = text[:_READ].lower()
    if not text.isascii() and unspaced(text):
        return frozenset(_PAIR.findall(text))
    return frozenset(word for word in words or WORD.findall(text) if len(word) > 3 or word.isdigit())
