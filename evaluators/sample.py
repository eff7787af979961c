"""What is evaluated: one choice of one response, as every tap gives it and as recorded samples hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

Ended = Literal["complete", "client_abort", "interrupted", "error"]
Sampled = Literal["rate", "kept"]

CANARY = "palegreen-canary"
"""User and session of our own questions to the engine, which are no part of what users see."""


class ToolCall(TypedDict):
    """One call of a tool: `arguments` as the model wrote them, valid JSON or not."""

    name: str
    arguments: str
    id: NotRequired[str]


class Message(TypedDict):
    """One message of a conversation. `content` is text; a part that is none stands as `[image]` or the like."""

    role: str
    content: str
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


@dataclass(slots=True)
class Sample:
    """One choice. The fields up to `sampled` are those of recorded samples (JSON lines); only `response` is required.

    Times are epoch seconds, durations seconds. Empty and None mean unknown. `logprobs` are those of the response's
    tokens. `response_format` is as the request gave it. `tools` are the declared functions:
    `{"name", "description"?, "parameters"?}`.
    """

    response: str
    id: str = ""
    time: float = 0.0
    model: str = ""
    endpoint: str = ""
    route: str = ""
    replica: str = ""
    session: str = ""
    team: str = ""
    trace_id: str = ""
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    response_format: dict[str, Any] | None = None
    contexts: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: list[float] | None = None
    mean_logprob: float | None = None
    ttft_seconds: float | None = None
    duration_seconds: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    system_fingerprint: str = ""
    sampled: Sampled = "rate"

    # Beyond the recorded format's fixed fields; written and read too, where known.
    tap: str = ""
    choice: int = 0
    requested_model: str = ""
    reasoning: str = ""
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    status: int | None = None
    error: str = ""
    refused: bool = False
    """Whether the response said by a field of its own (`refusal`) that the model refused; `response` is that text."""
    ended: Ended = "complete"
    truncated: bool = False
    """Whether a limit on the body cut what was held: text is missing that the client got."""

    @property
    def prompt(self) -> str:
        """The last thing that the user said, empty if unknown."""
        for message in reversed(self.messages):
            if message["role"] == "user":
                return message["content"]
        return ""

    @property
    def system(self) -> str:
        """System and developer messages, joined by blank lines."""
        return "\n\n".join(m["content"] for m in self.messages if m["role"] in ("system", "developer"))


@dataclass(frozen=True, slots=True)
class Step:
    """How long one link of a chain took (retrieval, a tool, a model call), from spans or usage."""

    kind: Literal["model", "retrieval", "tool", "embedding", "agent"]
    name: str
    seconds: float
    time: float = 0.0
    trace_id: str = ""
    model: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user thought of a response."""

    kind: Literal["thumbs_up", "thumbs_down"]
    response_id: str
    time: float = 0.0
    tap: str = ""


Observation = Sample | Step | Feedback
