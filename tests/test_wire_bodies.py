"""Bodies that are compressed, cut, broken or hostile: a sample, or one clear line, and never more than the limits.

PALEGREEN_FUZZ_EXAMPLES=20000 makes the fuzzers try that many inputs each, at random, instead of a few fixed ones.
"""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.wire import ASKED, CAPTURES, captured, delta, envelope, sample, samples, stream

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.wire.body import MAX_DECODED
from palegreen.evaluators.wire.decode import Decoder
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import recovered

ANSWER = json.dumps({"id": "r", "choices": [{"message": {"content": "Yés."}, "finish_reason": "stop"}]}).encode()
EXAMPLES = int(os.environ.get("PALEGREEN_FUZZ_EXAMPLES", "0"))
fuzzed = settings(
    max_examples=EXAMPLES or 200, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),  # members
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_read(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    headers = {"content-encoding": encoding}
    asked = pack(json.dumps(ASKED).encode())
    read = sample(envelope(asked, pack(ANSWER), request_headers=headers, response_headers=headers))
    assert (read.response, read.prompt) == ("Yés.", "Why?")


def test_a_compressed_stream_is_timed_by_its_first_bytes() -> None:
    body = gzip.compress(stream(delta("x", "stop")))
    meta = {"response_headers": {"content-encoding": "gzip"}, "arrivals": [[10, 0.2], [len(body), 0.9]]}
    assert sample(envelope(response=body, **meta)).ttft_seconds == 0.2


@pytest.mark.parametrize("size", [10, 40, 80])
def test_a_compressed_stream_that_was_cut_gives_what_there_is(size: int) -> None:
    body = gzip.compress(stream(*(delta(f"word {at} ") for at in range(40))))[:-size]
    read = sample(envelope(response=body, response_truncated=True, response_headers={"content-encoding": "gzip"}))
    assert read.response.startswith("word 0 word 1 ")
    assert (read.truncated, read.ended) == (True, "complete")


@pytest.mark.parametrize(
    ("encoding", "body", "problem"),
    [
        ("lzma", b"x", "content-encoding 'lzma'; allowed: gzip, deflate, br, zstd, identity"),
        ("br", b"\xff\xffplain", "not valid br data"),
        ("br", brotli.compress(ANSWER * 50)[:-9], "br data that ends too early"),
        ("br", brotli.compress(b" " * (40 << 20)), f"br data of more than {MAX_DECODED} bytes; allowed: at most that"),
        ("zstd", b"plain text", "not valid zstd data"),
        (
            "zstd",
            zstandard.compress(b" " * (40 << 20)),
            f"zstd data of more than {MAX_DECODED} bytes; allowed: at most that",
        ),
        ("gzip, gzip, gzip", b"x", "3 content-encodings; allowed: at most 2"),
        ("gzip", b"plain text", "not valid gzip data"),
        ("deflate", b"\xff\xff\xff", "not valid deflate data"),
        ("gzip", gzip.compress(ANSWER)[:-9], "gzip data that ends too early"),
        (
            "gzip",
            gzip.compress(b" " * (MAX_DECODED + 1)),
            f"gzip data of more than {MAX_DECODED} bytes; allowed: at most that",
        ),
        ("gzip", gzip.compress(b"") * 1000, "gzip data of more than 64 members; allowed: at most that"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,  # packed bytes hold the time
)
def test_an_encoding_that_cannot_be_undone_is_one_clear_line(encoding: str, body: bytes, problem: str) -> None:
    with pytest.raises(WireError) as refused:
        samples(envelope(response=body, response_headers={"content-encoding": encoding}))
    assert str(refused.value) == f"response body: {problem}"


def test_a_gzip_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(gzip.compress(bytes(100 << 20), 1), 9)
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="more than"):
            samples(envelope(response=bomb, response_headers={"content-encoding": "gzip, gzip"}))
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_DECODED
    finally:
        tracemalloc.stop()


def test_a_charset_is_read_or_refused_by_name() -> None:
    body = ANSWER.decode().replace("\\u00e9", "é")
    for charset in ("utf-8", "UTF-8", "iso-8859-1", "windows-1252", '"utf-16"'):
        headers = {"content-type": f"application/json; charset={charset}"}
        encoded = body.encode(charset.strip('"'))
        assert sample(envelope(response=encoded, response_headers=headers)).response == "Yés."
    with pytest.raises(WireError, match=r"^response body: charset 'utf-7'; allowed: utf-8, iso-8859-1"):
        samples(envelope(response=b"x", response_headers={"content-type": "application/json; charset=utf-7"}))


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf" + ANSWER, ANSWER.replace(b"s.", b"s.\\ud83d"), ANSWER + b"\n"])
def test_json_of_other_writers_is_read(body: bytes) -> None:
    assert sample(envelope(response=body)).response.startswith("Yés.")


def test_not_a_number_is_no_logprob() -> None:
    tokens = [{"logprob": float("nan")}, {"logprob": -1.0}, {"logprob": float("-inf")}]
    choice = {"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": tokens}}
    assert sample(envelope(response={"id": "r", "choices": [choice]})).logprobs == [-1.0]


@pytest.mark.parametrize(
    ("request_", "response", "problem"),
    [
        (b"{", ANSWER, "request body: not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"[]", ANSWER, "request body: JSON that is no object"),
        (b"", ANSWER, "request body: not JSON: Expecting value at character 0"),
        (ASKED, b"{", "response body: not JSON: Expecting property name enclosed in double quotes at character 1"),
        (ASKED, b"[" * 100_000, "response body: not JSON: nested too deeply"),
        (ASKED, b"9" * 5_000, "response body: not JSON: a number that is too long"),
        (ASKED, b"<html>secret</html>", "response body: not JSON: Expecting value at character 0"),
    ],
)
def test_what_is_no_json_is_one_clear_line(request_: Any, response: bytes, problem: str) -> None:
    meta = Envelope({"tap": "t", "kind": "http", "path": "/v1/chat/completions", "status": 200}, [])
    asked = request_ if isinstance(request_, bytes) else json.dumps(request_).encode()
    with pytest.raises(WireError) as refused:
        Decoder(Defaults()).decode(meta._replace(parts=[asked, response]))
    assert str(refused.value) == problem


def test_of_a_request_that_was_cut_the_whole_values_are_kept() -> None:
    body = json.dumps({"model": "m", "tools": [{"name": "f"}], "messages": [{"role": "user", "content": "long"}]})
    read = sample(envelope(body[:-6].encode(), ANSWER, request_truncated=True))
    assert (read.requested_model, read.tools, read.messages) == ("m", [{"name": "f"}], [])
    assert read.truncated
    assert sample(envelope(b"{", ANSWER, request_truncated=True)).requested_model == ""


def test_of_a_response_that_was_cut_the_text_so_far_is_kept() -> None:
    at = ANSWER.index(b"s.")
    read = sample(envelope(response=ANSWER[:at], response_truncated=True))
    assert (read.response, read.id, read.truncated) == ("Yé", "r", True)
    assert sample(envelope(response=ANSWER[:at], ended="client_abort")).ended == "client_abort"
    assert sample(envelope(response=ANSWER[: at - 2], ended="client_abort")).response == "Y"  # half an escape


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
)


def is_beginning(part: Any, whole: Any) -> bool:
    """Whether `part` is what may be left of `whole`."""
    if isinstance(whole, str) and isinstance(part, str):
        return whole.startswith(part)
    if isinstance(whole, list) and isinstance(part, list):
        return len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and is_beginning(value, whole[key]) for key, value in part.items())
    return bool(part == whole)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.booleans(), st.data())
def test_what_is_left_of_cut_json_is_true(whole: dict[str, Any], ascii_only: bool, data: st.DataObject) -> None:
    body = json.dumps(whole, ensure_ascii=ascii_only).encode()
    cut = body[: data.draw(st.integers(0, len(body)))]
    assert is_beginning(recovered(cut), whole)
    assert recovered(body) == whole
    kept = recovered(cut, keep_cut=False)
    assert all(whole[key] == value for key, value in kept.items())


NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/api/chat", "/api/generate", "/generate", "/x"]
METAS = st.fixed_dictionaries(
    {"path": st.sampled_from(PATHS), "status": st.sampled_from([None, 200, 400, 502])},
    optional={
        "ended": st.sampled_from(["complete", "client_abort", "interrupted", "error"]),
        "request_truncated": st.booleans(),
        "response_truncated": st.booleans(),
        "arrivals": st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1)).map(list), max_size=3),
        "session": st.text(max_size=4),
    },
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/event-stream", "x-ndjson", "a; charset=utf-16"]),
        "content-encoding": st.sampled_from(["gzip", "deflate", "br", "gzip, deflate", ",", ""]),
        "traceparent": st.text(max_size=60),
        "x-request-id": st.text(max_size=5),
    },
)


def only_wire_errors(given_: Envelope) -> None:
    """Decode, and hold what comes out to what a sample promises."""
    try:
        found = samples(given_)
    except WireError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        return
    for read in found:
        read.response.encode()
        read.reasoning.encode()
        assert all(set(message) >= {"role", "content"} for message in read.messages)
        assert all(isinstance(call["arguments"], str) for call in read.tool_calls)
        assert read.ended in ("complete", "client_abort", "interrupted", "error")
        assert read.mean_logprob is None or read.logprobs


@fuzzed
@given(METAS, HEADERS, HEADERS, st.binary(max_size=300), st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_else(
    meta: dict[str, Any], sent: dict[str, str], got: dict[str, str], request: bytes, response: bytes
) -> None:
    only_wire_errors(envelope(request, response, request_headers=sent, response_headers=got, **meta))


@fuzzed
@given(st.sampled_from(NAMES), METAS, st.sampled_from([0, 1]), st.data())
def test_mutated_exchanges_raise_nothing_else(name: str, meta: dict[str, Any], side: int, data: st.DataObject) -> None:
    given_ = captured(name, **(meta if data.draw(st.booleans()) else {}))
    body = bytearray(given_.parts[side])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(body)))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "cut", "repeat"]))
        if kind == "set":
            body[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            body[at:at] = data.draw(
                st.sampled_from([b"{", b"[", b'"', b"null", b"\n\n", b"\r", b"-1", b"1e999", b"\\ud800"])
            )
        elif kind == "delete":
            del body[at : at + data.draw(st.integers(1, 40))]
        elif kind == "cut":
            del body[at:]
        else:
            body[at:at] = body[at : at + 60]
    parts = list(given_.parts)
    parts[side] = bytes(body)
    only_wire_errors(given_._replace(parts=parts))


# Every key that a decoder reads, with a value of any type.
KEYS = [
    "choices",
    "index",
    "delta",
    "message",
    "content",
    "reasoning_content",
    "reasoning",
    "refusal",
    "tool_calls",
    "function",
    "function_call",
    "name",
    "arguments",
    "id",
    "type",
    "finish_reason",
    "logprobs",
    "logprob",
    "usage",
    "prompt_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "error",
    "model",
    "object",
    "messages",
    "role",
    "text",
    "prompt",
    "n",
    "echo",
    "tools",
    "parameters",
    "response_format",
    "documents",
    "metadata",
    "contexts",
    "user",
    "input",
    "instructions",
    "output",
    "item",
    "response",
    "status",
    "incomplete_details",
    "summary",
    "output_index",
    "item_id",
    "done",
    "format",
    "meta_info",
    "conversation",
    "inputs",
    "token",
    "details",
    "generated_text",
    "audio",
    "transcript",
    "token_logprobs",
    "detail",
    "code",
    "results",
]
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats() | st.text(max_size=4) | st.sampled_from(KEYS),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS), children, max_size=6),
    max_leaves=30,
)


@fuzzed
@example({"path": PATHS[0], "status": 200}, {"messages": [{"role": "user", "tool_calls": 1}]}, {"error": "x"})
@example(
    {"path": PATHS[0], "status": 200},
    {},
    b'{"choices": [{"logprobs": {"content": [NaN, {"logprob": 1%s}]}}]}' % (b"0" * 400),
)
@given(METAS, SHAPES, st.one_of(SHAPES, st.lists(SHAPES, max_size=4).map(lambda chunks: stream(*chunks))))
def test_json_of_any_shape_raises_nothing_else(meta: dict[str, Any], request: Any, response: Any) -> None:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (request, response)]
    only_wire_errors(Envelope({"tap": "t", "kind": "http", "method": "POST", **meta}, parts))


@pytest.mark.parametrize(
    ("meta", "parts", "problem"),
    [
        ({}, [], "kind 'None'; allowed: "),
        ({"kind": "smoke"}, [], "kind 'smoke'; allowed: "),
        ({"kind": "http"}, [b""], "http: 1 parts; allowed: 2, request body and response body"),
        ({"kind": "jsonl"}, [], "jsonl: 0 parts; allowed: 1, the line"),
    ],
)
def test_an_envelope_that_is_none_is_one_clear_line(meta: dict[str, Any], parts: list[bytes], problem: str) -> None:
    with pytest.raises(WireError) as refused:
        Decoder(Defaults()).decode(Envelope(meta, parts))
    assert str(refused.value).startswith(problem)
