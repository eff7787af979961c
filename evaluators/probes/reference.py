"""What a replica that is well answers: the file that `palegreen canary record` makes and canaries compare with.

It holds answers, not vectors of them, so it goes with any embedder: what is compared is embedded when it is needed.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from palegreen.evaluators.contents import identity, problem
from palegreen.evaluators.probes.chat import Said
from palegreen.evaluators.probes.prompts import MOST, Prompt
from palegreen.runtime.settings import Section
from palegreen.runtime.yamlfile import ConfigError

FORMAT = 1
MOST_BYTES = 64 << 20
"""Of the file."""


class RecordedToken(Section):
    """One token of an answer: its logprob, and those of the likeliest in its place."""

    text: str
    logprob: float
    top: dict[str, float] = Field({})


class Recorded(Section):
    """One answer; times are seconds."""

    text: str
    finish_reason: str = ""
    tokens: list[RecordedToken] = Field([])
    ttft: float = Field(ge=0)
    duration: float = Field(ge=0)
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)

    @classmethod
    def of(cls, said: Said) -> Recorded:
        """What is kept of an answer."""
        tokens = [RecordedToken(text=token.text, logprob=token.logprob, top=token.top) for token in said.tokens]
        return cls(
            text=said.text,
            finish_reason=said.finish_reason,
            tokens=tokens,
            ttft=said.ttft,
            duration=said.duration,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
        )


class Case(Section):
    """A question with its answers: some at temperature 0, which differ where the engine is not deterministic, and some
    at the reference's temperature.
    """

    prompt: Prompt
    greedy: list[Recorded] = Field(min_length=2)
    sampled: list[Recorded] = Field([])

    @property
    def cost(self) -> int:
        """Tokens that one run takes, as far as the recorded ones tell, at most."""
        return max(answer.prompt_tokens + answer.completion_tokens for answer in (*self.greedy, *self.sampled))


class Reference(Section):
    """The file."""

    format: int
    id: str = Field("", description="hash of the contents")
    created: float = Field(ge=0, description="epoch seconds")
    evaluator_version: str = ""
    model: str = Field(description="name that the engine was asked for")
    served: str = Field("", description="name under which it answered")
    temperature: float = Field(gt=0, le=2)
    left_out: dict[str, str] = Field({}, description="prompts that the engine refused, with its reason")
    cases: list[Case] = Field(min_length=1, max_length=MOST)

    @model_validator(mode="after")
    def _names_differ(self) -> Reference:
        names = [case.prompt.name for case in self.cases]
        if double := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"two prompts are named {double}; allowed: one")
        return self


def load(path: Path) -> Reference:
    """Read a reference. Raises ConfigError, one line."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as failure:
        raise ConfigError(
            f"{path}: cannot be read: {failure.strerror}; allowed: what palegreen canary record has made"
        ) from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: more than {MOST_BYTES >> 20} MiB; allowed: what palegreen canary record has made")
    try:
        reference = Reference.model_validate_json(content)
    except ValidationError as refused:
        raise ConfigError(f"{path}: {problem(refused)}") from None
    if reference.format != FORMAT:
        raise ConfigError(f"{path}: format: got {reference.format}; allowed: {FORMAT}")
    if reference.id != identity(json.loads(content)):
        raise ConfigError(
            f"{path}: its contents are not those of {reference.id or 'a recorded reference'}; record it anew"
        )
    return reference


def save(path: Path, reference: Reference, *, force: bool) -> Reference:
    """Write a reference, whole or not at all; it gets its id. Raises ConfigError, one line."""
    said = reference.model_dump(mode="json")
    said["id"] = identity(said)
    content = json.dumps(said, indent=1, ensure_ascii=False).encode()
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: would be {len(content) >> 20} MiB; allowed: {MOST_BYTES >> 20}: ask for less")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            if force:
                Path(name).replace(path)
            else:
                path.hardlink_to(name)  # fails where there is one, which replace does not
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()
    except FileExistsError:
        raise ConfigError(f"{path}: is there already; allowed: another name, or --force") from None
    except OSError as failure:
        raise ConfigError(f"{path}: cannot be written: {failure.strerror}") from None
    return reference.model_copy(update={"id": said["id"]})


def writable(path: Path, *, force: bool) -> None:
    """Refuse before an hour of recording what could not be written after it. Raises ConfigError, one line."""
    if path.exists() and not force:
        raise ConfigError(f"{path}: is there already; allowed: another name, or --force")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: {path.parent} is not a folder")
