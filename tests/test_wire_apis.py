"""Completions, the responses API, and engines' own endpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.wire import captured, envelope, sample, samples, stream

from palegreen.evaluators.wire.errors import WireError

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"


def completion(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"text": text, "index": index, "finish_reason": "stop", **more}
    return {"id": "cmpl-1", "object": "text_completion", "model": "served", "choices": [choice]}


@pytest.mark.parametrize(
    ("prompt", "content"), [("Once", "Once"), (["Once"], "Once"), ([1, 2, 3], "[tokens]"), ([[1, 2]], "[tokens]")]
)
def test_a_prompt_is_what_the_user_said(prompt: Any, content: str) -> None:
    read = sample(envelope({"model": "m", "prompt": prompt}, completion(" upon"), path=COMPLETIONS))
    assert read.messages == [{"role": "user", "content": content}]
    assert read.response == " upon"


def test_choices_of_a_batch_go_with_their_prompts() -> None:
    read = samples(captured("openai-completions-batch"))
    assert [(one.prompt, one.response) for one in read] == [("One", " a"), ("One", " b"), ("Two", " c"), ("Two", " d")]
    assert [one.completion_tokens for one in read] == [1, 1, 1, 1]  # as many as logprobs
    assert {one.prompt_tokens for one in read} == {None}  # whose they are is not said


def test_a_batch_that_was_cut_keeps_choices_with_their_prompts() -> None:
    chunks = [completion("d", 3), completion("b", 1)]
    read = samples(envelope({"prompt": ["One", "Two"], "n": 2}, chunks, path=COMPLETIONS))
    assert [(one.prompt, one.response, one.choice) for one in read] == [("One", "b", 1), ("Two", "d", 3)]


def test_a_batch_that_brought_nothing_ended_as_the_tap_saw() -> None:
    read = sample(envelope({"prompt": []}, b": ping\n\n", path=COMPLETIONS, ended="client_abort"))
    assert (read.response, read.ended, read.messages) == ("", "client_abort", [])


def test_logprobs_leave_out_the_first_token_which_has_none() -> None:
    logprobs = {"tokens": ["a", "b", "c"], "token_logprobs": [None, -1.0, -3.0], "text_offset": [0, 1, 2]}
    read = sample(envelope({"prompt": ""}, completion("abc", logprobs=logprobs), path=COMPLETIONS))
    assert (read.logprobs, read.mean_logprob) == ([-1.0, -3.0], -2.0)


def test_an_echoed_prompt_is_no_response() -> None:
    logprobs = {"token_logprobs": [None, -1.0, -3.0]}
    answer = completion("Once upon", logprobs=logprobs)
    read = sample(envelope({"prompt": "Once", "echo": True}, answer, path=COMPLETIONS))
    assert (read.response, read.logprobs) == (" upon", None)  # logprobs are mostly the prompt's


def test_items_in_become_messages() -> None:
    read = sample(captured("openai-responses-stream"))
    assert read.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Paris?\n[image]"},
    ]
    assert [tool["name"] for tool in read.tools] == ["get_weather"]  # web search is the provider's own
    assert (read.reasoning, read.reasoning_tokens) == ("Need the weather.", 12)
    assert (read.finish_reason, read.session, read.cached_tokens) == ("tool_calls", "conv_7", 16)


def test_calls_and_their_outputs_become_messages() -> None:
    items = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"type": "item_reference", "id": "msg_1"},
    ]
    answer = {"id": "r", "object": "response", "status": "completed", "output": []}
    assert sample(envelope({"input": items}, answer, path=RESPONSES)).messages == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}", "id": "call_1"}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]


def test_a_schema_stands_where_it_does_for_chats() -> None:
    shape = {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}
    request = {"input": "x", "text": {"format": shape}}
    answer = {"id": "r", "object": "response", "status": "completed", "output": []}
    assert sample(envelope(request, answer, path=RESPONSES)).response_format == {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
    }


@pytest.mark.parametrize(
    ("whole", "finish_reason", "ended"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length", "complete"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter", "complete"),
        ({"status": "failed", "error": {"code": "server_error", "message": "boom"}}, "error", "error"),
    ],
)
def test_a_response_says_why_it_ended(whole: dict[str, Any], finish_reason: str, ended: str) -> None:
    content = [{"type": "refusal", "refusal": "No."}]
    answer = {"id": "r", "object": "response", "output": [{"type": "message", "content": content}], **whole}
    for body in (answer, stream({"type": f"response.{whole['status']}", "response": answer}, done=False)):
        read = sample(envelope({"input": "x"}, body, path=RESPONSES))
        assert (read.finish_reason, read.ended, read.response) == (finish_reason, ended, "No.")
        assert read.error == ("server_error: boom" if ended == "error" else "")


def test_passages_that_a_search_found_are_contexts() -> None:
    search = {"type": "file_search_call", "results": [{"text": "one"}, {"text": "two"}]}
    answer = {"id": "r", "object": "response", "status": "completed", "output": [search]}
    assert sample(envelope({"input": "x"}, answer, path=RESPONSES)).contexts == ["one", "two"]


def test_a_failing_stream_of_the_responses_api_is_an_error() -> None:
    events = [
        {"type": "response.output_text.delta", "output_index": 0, "delta": "so far"},
        {"type": "error", "code": "server_error", "message": "boom"},
    ]
    read = sample(envelope({"input": "x"}, stream(*events, done=False), path=RESPONSES))
    assert (read.response, read.ended, read.error) == ("so far", "error", "server_error: boom")


def test_ollamas_chat_is_read_line_by_line() -> None:
    request = {
        "model": "qwen3",
        "messages": [{"role": "user", "content": "Weather?"}],
        "format": {"type": "object"},
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    call = {"function": {"name": "f", "arguments": {"city": "Paris"}}}
    lines = [
        {"model": "qwen3", "message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
        {"model": "qwen3", "message": {"role": "assistant", "content": "Let me see."}, "done": False},
        {"model": "qwen3", "message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False},
        {"model": "qwen3", "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4},
    ]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    meta = {"path": "/api/chat", "response_headers": {"content-type": "application/x-ndjson"}}
    read = sample(envelope(request, body, arrivals=[[len(body), 0.5]], **meta))
    assert (read.response, read.reasoning, read.finish_reason) == ("Let me see.", "Hm.", "stop")
    assert read.tool_calls == [{"name": "f", "arguments": '{"city":"Paris"}'}]
    assert (read.prompt_tokens, read.completion_tokens, read.ttft_seconds) == (9, 4, 0.5)
    assert read.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "schema", "schema": {"type": "object"}},
    }
    cut = sample(envelope(request, body[:-20], ended="client_abort", **meta))
    assert (cut.response, cut.ended, cut.prompt_tokens) == ("Let me see.", "client_abort", None)


def test_ollamas_generate_is_one_object_without_streaming() -> None:
    request = {"model": "m", "system": "Be brief.", "prompt": "Why?", "format": "json", "stream": False}
    answer = {"model": "m", "response": "{}", "done": True, "done_reason": "length"}
    read = sample(envelope(request, answer, path="/api/generate"))
    assert (read.response, read.finish_reason, read.system, read.prompt) == ("{}", "length", "Be brief.", "Why?")
    assert read.response_format == {"type": "json_object"}


def test_tgis_own_endpoints_are_read() -> None:
    token = {"id": 1, "text": " Blue", "logprob": -0.5, "special": False}
    end = {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}
    details = {"finish_reason": "eos_token", "generated_tokens": 2, "tokens": [token, end]}
    whole = {"generated_text": " Blue", "details": details}
    chunks = [
        {"index": 1, "token": token, "generated_text": None, "details": None},
        {"index": 2, "token": end, "generated_text": " Blue", "details": {**details, "tokens": None}},
    ]
    request = {"inputs": "Sky?", "parameters": {"max_new_tokens": 2}}
    one = sample(envelope(request, whole, path="/generate"))
    two = sample(envelope(request, stream(*chunks, done=False), path="/generate_stream"))
    for read in (one, two):
        assert (read.response, read.finish_reason, read.completion_tokens) == (" Blue", "stop", 2)
        assert (read.logprobs, read.prompt, read.ended) == ([-0.5, -0.1], "Sky?", "complete")


def test_vllms_generate_repeats_the_prompt_and_sglangs_the_text() -> None:
    lines = b'{"text": ["Sky? Bl"]}\n{"text": ["Sky? Blue"]}\n'
    read = sample(envelope({"prompt": "Sky?", "stream": True}, lines, path="/generate"))
    assert (read.response, read.ended) == (" Blue", "complete")
    info = {
        "id": "s",
        "finish_reason": {"type": "length"},
        "prompt_tokens": 2,
        "completion_tokens": 1,
        "cached_tokens": 1,
    }
    body = stream({"text": " Bl", "meta_info": {"id": "s"}}, {"text": " Blue", "meta_info": info})
    read = sample(envelope({"text": "Sky?", "stream": True}, body, path="/generate"))
    assert (read.response, read.id, read.finish_reason, read.cached_tokens) == (" Blue", "s", "length", 1)


def test_a_line_that_is_no_object_ends_a_stream_of_lines() -> None:
    read = sample(envelope({}, b'{"text": "a"}\n{"text": "ab"}\noops\n', path="/generate"))
    assert (read.response, read.ended) == ("ab", "error")
    assert read.error == "line 3 of the stream is no JSON object"


@pytest.mark.parametrize("path", [COMPLETIONS, RESPONSES, "/api/chat", "/generate"])
def test_an_answer_of_another_form_is_one_clear_line(path: str) -> None:
    with pytest.raises(WireError, match=f"^response body: JSON that is no response of {path}$"):
        samples(envelope({"model": "m"}, {"hello": "world"}, path=path))
