"""What a request asked and what came of it, the same for every API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from palegreen.evaluators.sample import Message, ToolCall
from palegreen.evaluators.wire.shape import count, mapping, text

Chunk = tuple[dict[str, Any], int]
"""One JSON object of a response, an event of a stream or the whole body, and how much of the body had come with it."""


@dataclass(slots=True)
class Asked:
    """A request. `prompts` holds one conversation, several where an API takes a batch of prompts."""

    model: str = ""
    prompts: list[list[Message]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    response_format: dict[str, Any] | None = None
    contexts: list[str] = field(default_factory=list)
    n: int = 1
    """Choices a prompt."""
    echoes: bool = False
    """Whether the response begins with the prompt again."""


@dataclass(slots=True)
class Choice:
    """One choice as it grows. Pieces are joined at the end; `logprobs` is None until there is one."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str = ""
    logprobs: list[float] | None = None

    def add_logprobs(self, values: list[float]) -> None:
        """Those of further tokens."""
        if values:
            self.logprobs = self.logprobs or []
            self.logprobs += values


@dataclass(slots=True)
class Usage:
    """Tokens of a whole request, over all choices; None where not given."""

    prompt: int | None = None
    completion: int | None = None
    reasoning: int | None = None
    cached: int | None = None

    @classmethod
    def read(cls, usage: object) -> Usage:
        """Of the object `usage`, with the names of chat and completions or those of responses."""
        given = mapping(usage)
        into = mapping(given.get("prompt_tokens_details") or given.get("input_tokens_details"))
        out = mapping(given.get("completion_tokens_details") or given.get("output_tokens_details"))
        return cls(
            prompt=count(given.get("prompt_tokens", given.get("input_tokens"))),
            completion=count(given.get("completion_tokens", given.get("output_tokens"))),
            reasoning=count(out.get("reasoning_tokens")),
            cached=count(into.get("cached_tokens")),
        )


@dataclass(slots=True)
class Reply:
    """A response, whole or as far as it came. `first` is the `end` of the chunk with the first token."""

    id: str = ""
    model: str = ""
    fingerprint: str = ""
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    error: str = ""
    first: int | None = None
    contexts: list[str] = field(default_factory=list)
    endless: bool = False
    """Whether the API has no way to say that a response is complete."""

    def choice(self, index: int) -> Choice:
        """The choice of that index, made if it is new."""
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = Choice()
        return found

    def finished(self, choices: int) -> bool:
        """Whether each of that many choices says why it ended."""
        ended = sum(1 for choice in self.choices.values() if choice.finish_reason)
        return ended == max(choices, len(self.choices), 1)


_LONGEST_ERROR = 300


def error_of(body: dict[str, Any]) -> str:
    """What an error object says, "kind: message", cut to a line; empty if the body is no error."""
    error = body.get("error")
    if error is None and (body.get("object") == "error" or body.get("type") == "error" or "detail" in body):
        error = body  # vLLM before 0.10, an event of the responses API, FastAPI
    if not error:
        return ""
    if isinstance(error, str):
        kind, message = text(body.get("error_type")), error
    else:
        given = mapping(error)
        kind = next((k for key in ("type", "code") if (k := text(given.get(key))) and k != "error"), "")
        message = text(given.get("message")) or text(given.get("detail"))
    line = ": ".join(filter(None, (kind, " ".join(message.split())))) or "an error without a message"
    return line[:_LONGEST_ERROR]
