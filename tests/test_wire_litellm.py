"""LiteLLM's payloads decoded, beyond what its captures hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import senders

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire import litellm
from palegreen.evaluators.wire.errors import WireError

ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}]}
PAYLOAD: dict[str, Any] = {
    "id": "r-1", "call_type": "acompletion", "status": "success", "model": "openai/small", "model_group": "chat-model",
    "messages": [{"role": "user", "content": "Hello"}], "response": ANSWER, "model_parameters": {},
}  # fmt: skip


def decoded(body: bytes) -> list[Sample]:
    found = litellm.decode(Envelope({"kind": "litellm", "tap": "litellm", "time": 1.0}, [body]), senders.decode_http)
    return [one for one in found if isinstance(one, Sample)]


def of(**changes: Any) -> list[Sample]:
    return decoded(json.dumps(PAYLOAD | changes).encode())


def test_the_model_that_was_asked_for_is_the_group_that_callers_name() -> None:
    [found] = of()
    assert (found.requested_model, found.prompt, found.response) == ("chat-model", "Hello", "Hi.")


def test_a_response_that_is_a_text_is_read_as_one() -> None:
    [found] = of(response="Hi.")
    assert (found.id, found.response, found.model) == ("r-1", "Hi.", "openai/small")
    [found] = of(call_type="text_completion", messages="Hello", response="there")
    assert (found.prompt, found.response) == ("Hello", "there")


@pytest.mark.parametrize("call", ["aembedding", "image_generation", "rerank", "pass_through_endpoint", ""])
def test_calls_that_are_no_completion_are_left_out(call: str) -> None:
    assert of(call_type=call) == []


def test_a_team_without_an_alias_is_named_by_its_id() -> None:
    [found] = of(metadata={"user_api_key_team_id": "t-1", "user_api_key_team_alias": None}, session_id="s")
    assert (found.team, found.session) == ("t-1", "s")


def test_a_failure_has_the_providers_status_and_message() -> None:
    [found] = of(status="failure", response={}, error_information={"error_code": "429", "error_message": "slow down"})
    assert (found.status, found.ended, found.response) == (429, "error", "")
    assert "slow down" in found.error
    [found] = of(status="failure", response=None, error_information=None, error_str="boom")
    assert (found.status, found.error) == (500, "boom")


def test_texts_that_litellm_was_told_to_leave_out_are_missing_and_not_its_word_for_them() -> None:
    hidden = [{"role": "user", "content": "redacted-by-litellm"}]
    response = {"choices": [{"index": 0, "message": {"content": "redacted-by-litellm"}, "finish_reason": "stop"}]}
    [found] = of(messages=hidden, response=response)
    assert (found.response, found.messages, found.truncated, found.finish_reason) == ("", [], True, "stop")


def test_a_damaged_line_costs_no_other() -> None:
    line = json.dumps(PAYLOAD).encode()
    assert len(decoded(line + b"\n{broken\n\n" + line)) == 2


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "LiteLLM body: not JSON"),
        (b"{", "LiteLLM body: not JSON"),
        (b"\xff\xff\n\xff", "LiteLLM body: not JSON"),
        (b'{"a": 1}', "no standard logging payload in it"),
        (b"[1, 2]", "no standard logging payload in it"),
    ],
)
def test_what_is_no_payload_is_refused_in_one_line(body: bytes, line: str) -> None:
    with pytest.raises(WireError, match=line):
        decoded(body)


def test_an_empty_batch_is_nothing() -> None:
    assert decoded(b"[]") == []
