"""Redaction of whole samples: nothing planted anywhere survives, and what belongs together stays together."""

from __future__ import annotations

import copy
from dataclasses import asdict, fields
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.config import RedactionConfig
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Sample

PRIVATE = [
    "john.doe@example.com", "4111111111111111", "5500 0000 0000 0004", "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "sk-proj-abcdEFGH1234567890abcdEFGH1234567890", "Anna Schmidt",
]  # fmt: skip
ONLY_IN_TEXTS = ["203.0.113.7", "+49 30 1234567"]
NUMBERS = {"time", "prompt_tokens", "completion_tokens", "logprobs", "mean_logprob", "ttft_seconds", "duration_seconds",
           "choice", "reasoning_tokens", "cached_tokens", "status", "truncated", "refused", "sampled",
           "ended"}  # fmt: skip


def redactor(key: bytes | None = None) -> Redactor:
    return Redactor(RedactionConfig(names=["Anna Schmidt"]), key)


def filled(private: str) -> Sample:
    """A sample with something private in every field that can hold text."""
    text = f"see {private} there"
    arguments = orjson.dumps({"to": text, private: [1, {"deep": private}]}).decode()
    call = {"name": private, "arguments": arguments, "id": private}
    message = {"role": private, "content": text, "name": private, "tool_call_id": private, "tool_calls": [call]}
    schema = {"type": "object", "properties": {private: {"description": text, "enum": [private]}}}
    made: dict[str, Any] = {field.name: text for field in fields(Sample) if field.name not in NUMBERS}
    made |= {
        "messages": [message, {"role": "user", "content": text}],
        "tools": [{"name": private, "description": text, "parameters": schema}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "contexts": [text, private],
        "tool_calls": [call],
        "labels": {"user": private, private: "x"},
    }
    return Sample(**made)


@pytest.mark.parametrize("private", PRIVATE)
def test_nothing_planted_in_any_field_survives(private: str) -> None:
    made = filled(private)
    before = copy.deepcopy(made)
    held = orjson.dumps(asdict(redactor().sample(made))).decode()
    assert private not in held
    assert private.replace(" ", "") not in held
    assert made == before  # the sample that was given is as it was


@pytest.mark.parametrize("private", ONLY_IN_TEXTS)
def test_addresses_and_numbers_survive_in_no_field_either(private: str) -> None:
    assert private not in orjson.dumps(asdict(redactor().sample(filled(private)))).decode()


@given(st.integers(10**15, 10**16 - 1), st.text("abcdefghij", min_size=1, max_size=8))
def test_planted_cards_and_addresses_of_any_value_go(number: int, local: str) -> None:
    digits = f"4{number // 10}"[:15]
    total = sum(int(d) if at % 2 else sum(divmod(2 * int(d), 10)) for at, d in enumerate(digits))
    card, address = digits + str(-total % 10), f"{local}@example.com"
    held = orjson.dumps(asdict(redactor().sample(filled(f"{card} {address}")))).decode()
    assert card not in held
    assert address not in held


def test_a_sample_with_nothing_private_is_returned_as_it_is() -> None:
    sample = Sample("Paris.", id="chatcmpl-1", messages=[{"role": "user", "content": "Capital of France?"}])
    assert redactor().sample(sample) is sample


def test_sessions_that_are_private_still_group() -> None:
    one = redactor()
    sessions = [one.sample(Sample("x", session=s)).session for s in ("a@example.com", "a@example.com", "b@example.com")]
    assert sessions[0] == sessions[1] != sessions[2]
    assert sessions[0].startswith("redacted-")
    assert one.sample(Sample("x", session="9b1deb4d-3b7d-4bad")).session == "9b1deb4d-3b7d-4bad"


def test_hashes_of_ids_depend_on_the_key() -> None:
    hashed = [redactor(key).identifier("a@example.com") for key in (b"one", b"one", b"two", None, None)]
    assert hashed[0] == hashed[1]
    assert len(set(hashed)) == 4


def test_ids_that_refer_to_each_other_still_do() -> None:
    one = redactor()
    private = "call_a@example.com"
    sample = one.sample(
        Sample(
            "x",
            id=private,
            messages=[
                {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}", "id": private}]},
                {"role": "tool", "content": "ok", "tool_call_id": private},
            ],
        )
    )
    assert sample.messages[0]["tool_calls"][0]["id"] == sample.messages[1]["tool_call_id"] == sample.id
    assert one.identifier(private) == sample.id


def test_redacting_a_sample_twice_changes_nothing() -> None:
    one = redactor()
    for private in (*PRIVATE, *ONLY_IN_TEXTS):
        once = one.sample(filled(private))
        assert one.sample(once) == once


def test_arguments_and_responses_in_json_still_parse() -> None:
    sample = redactor().sample(
        Sample(
            '{"card": 4111111111111111, "amount": 12.50}',
            tool_calls=[{"name": "pay", "arguments": '{"number": 4111111111111111, "to": "a\\u0040b.example"}'}],
        )
    )
    assert orjson.loads(sample.response) == {"card": "[CARD]", "amount": 12.5}
    assert orjson.loads(sample.tool_calls[0]["arguments"]) == {"number": "[CARD]", "to": "[EMAIL]"}


def test_numbers_in_schemas_and_labels_are_seen_with_their_keys() -> None:
    sample = redactor().sample(
        Sample(
            "x", response_format={"default": 4111111111111111, "size": 12, "on": True}, labels={"phone": "4155552671"}
        )
    )
    assert sample.response_format == {"default": "[CARD]", "size": 12, "on": True}
    assert sample.labels == {"phone": "[PHONE]"}


def test_structures_deeper_than_anybody_nests_are_cut_and_marked() -> None:
    deep: dict[str, Any] = {"to": "a@example.com"}
    for _ in range(5000):
        deep = {"x": deep}
    held = redactor().sample(Sample("x", tools=[deep])).tools
    for _ in range(65):
        held = held["x"] if isinstance(held, dict) else held[0]  # type: ignore[assignment, call-overload]
    assert held == "[NESTED]"
