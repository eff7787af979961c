"""One request to the judge: an OpenAI-compatible chat completion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from palegreen.evaluators.judge.config import JudgeConfig
from palegreen.evaluators.judge.rubric import SCHEMA, UnparsableError, Verdict, messages, read
from palegreen.evaluators.outbound import OutboundError, Request, send
from palegreen.runtime.clienttls import verifying
from palegreen.runtime.secretfile import read_secret
from palegreen.runtime.yamlfile import ConfigError

_OWN = {"x-palegreen-canary": "judge"}  # no user's: an engine that judges may be one that is evaluated
Result = Literal["ok", "unparsable", "failed", "timeout", "limited"]


class Asked(NamedTuple):
    """What came of a request. `verdict` is None unless `result` is ok; `cause` is one line that quotes no text."""

    result: Result
    verdict: Verdict | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cause: str = ""


class Client:
    """Asks the judge. Raises ConfigError where the certificate authority cannot be used."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config
        try:
            self._context = verifying(config.ca_file) if config.ca_file is not None else None
        except OSError as failure:
            raise ConfigError(f"judge: ca_file {config.ca_file} cannot be used: {failure}") from None

    def ask(self, question: str, contexts: list[str], answer: str) -> Asked:
        """A verdict on one answer. Nothing is raised."""
        body = json.dumps(self._body(question, contexts, answer)).encode(errors="replace")
        url = f"{self._config.url.rstrip('/')}/chat/completions"
        try:
            headers = {"content-type": "application/json", **_OWN, **self._key()}
            said = send(Request("POST", url, headers, body), self._config.timeout, self._context)
        except (OutboundError, OSError, ValueError) as failure:
            return Asked(_result(failure), cause=str(failure))
        try:
            reply = json.loads(said)
        except (ValueError, RecursionError):
            return Asked("failed", cause="the answer is no JSON")
        tokens = _usage(reply)
        try:
            return Asked("ok", read(_content(reply)), *tokens)
        except UnparsableError as refused:
            return Asked("unparsable", None, *tokens, f"the answer {refused}")

    def _body(self, question: str, contexts: list[str], answer: str) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": messages(question, contexts, answer),
            "temperature": 0,
            "max_tokens": config.max_tokens,
        }
        if config.response_format == "json_schema":
            schema = {"name": "verdict", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif config.response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return {key: value for key, value in (body | config.extra).items() if value is not None}

    def _key(self) -> dict[str, str]:
        """Read anew each time, since keys are rotated. Raises OSError and ValueError."""
        file = self._config.api_key_file
        if file is None:
            return {}
        return {"authorization": f"Bearer {read_secret(file, 'key')}"}


def _result(failure: Exception) -> Result:
    if isinstance(failure, OutboundError):
        return "timeout" if failure.late else "limited" if failure.status == 429 else "failed"
    return "failed"


def _content(reply: Any) -> str:
    """The text of the only choice. Raises UnparsableError: it is no complete text."""
    match reply:
        case {"choices": [{"finish_reason": "length"}, *_]}:
            raise UnparsableError("was cut at max_tokens")
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            return content
    raise UnparsableError("is no chat completion with a text")


def _usage(reply: Any) -> tuple[int, int]:
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    counts = (usage.get(key) if isinstance(usage, Mapping) else 0 for key in ("prompt_tokens", "completion_tokens"))
    first, second = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return first, second
