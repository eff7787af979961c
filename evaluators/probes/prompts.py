"""Questions that canaries put: the set that ships, or a file of one's own in the same form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from palegreen.runtime.settings import Section
from palegreen.runtime.yamlfile import load

BUILT_IN = "built-in"
SAMPLED = "sampled"
"""What all answers at a temperature are called together; no prompt may have this name."""
MOST = 64


class Prompt(Section):
    """One question. Either `messages`, or `user` with or without `system`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="value of the label canary")
    user: str = Field("", description="what is asked")
    system: str = Field("", description="the system message before it")
    messages: list[dict[str, Any]] = Field([], description="a whole conversation instead")
    tools: list[dict[str, Any]] = Field([], description="as in the OpenAI API")
    response_format: dict[str, Any] | None = Field(None, description="as in the OpenAI API")
    max_tokens: int = Field(32, ge=1, le=1024, description="most tokens of the answer")

    @model_validator(mode="after")
    def _asks_something(self) -> Prompt:
        if bool(self.messages) == bool(self.user):
            raise ValueError("exactly one of user and messages is to be given")
        if self.name == SAMPLED:
            raise ValueError(f"{SAMPLED} is the name of all sampled answers together; allowed: another name")
        return self

    def request(self, temperature: float) -> dict[str, Any]:
        """The body of its request, without the model."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "messages": self.messages or [*said, {"role": "user", "content": self.user}],
            "max_tokens": self.max_tokens,
            "temperature": temperature,
        }
        if self.tools:
            body["tools"] = self.tools
        if self.response_format is not None:
            body["response_format"] = self.response_format
        return body


class Prompts(Section):
    """A set of questions."""

    temperature: float = Field(1.0, gt=0, le=2, description="of sampled answers")
    prompts: list[Prompt] = Field(min_length=1, max_length=MOST)

    @model_validator(mode="after")
    def _names_differ(self) -> Prompts:
        names = [prompt.name for prompt in self.prompts]
        if double := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"two prompts are named {double}; allowed: one")
        return self


def prompts(source: str) -> Prompts:
    """The set that ships for `built-in`, else that of a YAML file. Raises ConfigError, one line."""
    return load(Path(__file__).with_name("prompts.yaml") if source == BUILT_IN else Path(source), Prompts)
