"""Chat completions: a stream says what the whole body says, and each thing that engines add is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import ASKED, delta, envelope, sample, samples, stream

from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
CALL = st.fixed_dictionaries({"id": TEXT, "name": TEXT, "arguments": st.text(max_size=20)})
CHOICE = st.fixed_dictionaries(
    {
        "content": st.text(max_size=30).filter(lambda text: "<think>" not in text),
        "reasoning_content": st.text(max_size=20),
        "refusal": st.text(max_size=10),
        "calls": st.lists(CALL, max_size=3, unique_by=lambda call: call["id"]),
        "logprobs": st.lists(st.floats(-20, 0), max_size=5),
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    }
)
USAGE = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "prompt_tokens": st.integers(0, 1000),
            "completion_tokens": st.integers(0, 1000),
            "prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": st.integers(0, 100)}),
            "completion_tokens_details": st.fixed_dictionaries({"reasoning_tokens": st.integers(0, 100)}),
        }
    ),
)
HEAD = {"id": "chatcmpl-1", "model": "served", "system_fingerprint": "fp_1"}


def whole(choices: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
    """The body without streaming."""

    def message(choice: dict[str, Any]) -> dict[str, Any]:
        calls = [{"id": c["id"], "function": {k: c[k] for k in ("name", "arguments")}} for c in choice["calls"]]
        texts = {key: choice[key] or None for key in ("content", "reasoning_content", "refusal")}
        return {"role": "assistant", **texts, "tool_calls": calls}

    made = [
        {
            "index": at,
            "message": message(choice),
            "finish_reason": choice["finish_reason"],
            "logprobs": {"content": [{"token": "t", "logprob": value} for value in choice["logprobs"]]},
        }
        for at, choice in enumerate(choices)
    ]
    return {**HEAD, "object": "chat.completion", "choices": made, **({"usage": usage} if usage else {})}


def in_pieces(text: str, draw: Callable[..., Any]) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def deltas(choice: dict[str, Any], draw: Callable[..., Any]) -> list[dict[str, Any]]:
    """What brings a choice bit by bit: deltas of one kind in order, the kinds one after another."""
    made: list[dict[str, Any]] = [{"role": "assistant", "content": draw(st.sampled_from([None, ""]))}]
    for key in ("reasoning_content", "content", "refusal"):
        made += [{key: piece} for piece in in_pieces(choice[key], draw)]
    for at, call in enumerate(choice["calls"]):
        first, *rest = in_pieces(call["arguments"], draw)
        function = {"name": call["name"], "arguments": first}
        made.append({"tool_calls": [{"index": at, "id": call["id"], "type": "function", "function": function}]})
        made += [{"tool_calls": [{"index": at, "function": {"arguments": piece}}]} for piece in rest]
    return made


@st.composite
def renderings(draw: Callable[..., Any]) -> tuple[dict[str, Any], bytes]:
    """A response, and a stream of the same."""
    choices, usage = draw(st.lists(CHOICE, min_size=1, max_size=3)), draw(USAGE)
    queues: list[list[dict[str, Any]]] = []
    for at, choice in enumerate(choices):
        queue = [{"index": at, "delta": one, "finish_reason": None} for one in deltas(choice, draw)]
        tokens = [{"token": "t", "logprob": value} for value in choice["logprobs"]]
        queue += [{"index": at, "delta": {}, "logprobs": {"content": [token]}} for token in tokens]
        queue.append({"index": at, "delta": {}, "finish_reason": choice["finish_reason"]})
        queues.append(queue)
    chunks = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        chunk = {**HEAD, "object": "chat.completion.chunk", "choices": [queue.pop(0)]}
        if usage and draw(st.booleans()):
            chunk["usage"] = {"prompt_tokens": usage["prompt_tokens"], "completion_tokens": 0}  # continuous
        chunks.append(chunk)
    if usage:
        chunks.append({**HEAD, "choices": [], "usage": usage})
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    noise = draw(st.sampled_from([b"", b": ping" + end, b"event: message" + end]))
    body = b"".join(noise + b"data: " + json.dumps(chunk).encode() + end + end for chunk in chunks)
    return whole(choices, usage), body + b"data: [DONE]" + end + end


@given(renderings())
def test_a_stream_gives_what_the_whole_body_gives(rendering: tuple[dict[str, Any], bytes]) -> None:
    body, streamed = rendering
    assert samples(envelope(response=streamed)) == samples(envelope(response=body))


def test_an_exchange_becomes_a_sample_with_all_that_is_known() -> None:
    request = {
        "model": "asked",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
            {"role": "user", "content": [{"type": "input_audio"}, {"type": "file"}, {"type": "new"}]},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}},
            {"type": "web_search"},
        ],
        "response_format": {"type": "json_object"},
        "documents": [{"title": "T", "text": "one"}, "two", {"data": {"snippet": "three"}}, {"title": "none"}, 4],
        "metadata": {"contexts": ["four"], "thread_id": "t-1"},
    }
    message = {"role": "assistant", "content": "{}", "reasoning": "Hm."}
    response = {"id": "r", "model": "served", "choices": [{"message": message, "finish_reason": "stop"}]}
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    meta = {"time": 7.0, "duration": 2.0, "sampled": "kept", "request_headers": headers}
    read = sample(envelope(request, response, path="/v1/chat/completions?x=1", **meta), Defaults("m", "api", "host:1"))
    assert read == Sample(
        response="{}",
        id="r",
        time=7.0,
        model="served",
        endpoint="api",
        route="/v1/chat/completions",
        replica="host:1",
        session="t-1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "What is it?\n[image]"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "", "id": "c"}]},
            {"role": "tool", "content": "42", "tool_call_id": "c"},
            {"role": "user", "content": "[audio]\n[file]\n[part]"},
        ],
        tools=[{"name": "f", "parameters": {"type": "object"}}],
        response_format={"type": "json_object"},
        contexts=["one", "two", "three", "four"],
        finish_reason="stop",
        duration_seconds=2.0,
        sampled="kept",
        tap="proxy",
        requested_model="asked",
        reasoning="Hm.",
        status=200,
    )


def test_the_usage_of_several_choices_is_counted_once() -> None:
    choices = [{"index": at, "message": {"content": "x"}, "finish_reason": "stop"} for at in (1, 0)]
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
    one, two = samples(envelope(response={"id": "r", "choices": choices, "usage": usage}))
    assert (one.choice, one.prompt_tokens, one.cached_tokens, one.completion_tokens) == (0, 5, 4, None)
    assert (two.choice, two.prompt_tokens, two.cached_tokens, two.completion_tokens) == (1, None, None, None)


@pytest.mark.parametrize(
    ("content", "response", "reasoning"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("\n<think>Hm.</think>Yes.", "Yes.", "Hm."),
        ("<think>Hm", "", "Hm"),
        ("<think></think>Yes.", "Yes.", ""),
        ("Use <think>.</think>", "Use <think>.</think>", ""),  # not at the start
        ("Hm.</think>Yes.", "Hm.</think>Yes.", ""),  # begun nowhere: the client saw it
    ],
)
def test_thoughts_at_the_start_of_the_text_are_reasoning(content: str, response: str, reasoning: str) -> None:
    read = sample(envelope(response=[delta(piece) for piece in content] + [delta(finish_reason="stop")]))
    assert (read.response, read.reasoning) == (response, reasoning)


def call(name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"function": {"name": name, "arguments": arguments}, **more}]}


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        # the name in every delta
        ([call("f", "{", index=0, id="a"), call("f", "}", index=0, id="a")], [("f", "{}", "a")]),
        # arguments as an object
        ([call("f", {"x": 1}, index=0, id="a")], [("f", '{"x":1}', "a")]),
        # no index at all
        ([call("f", "{", id="a"), call(None, "}"), call("g", "{}", id="b")], [("f", "{}", "a"), ("g", "{}", "b")]),
        # every call is number 0
        ([call("f", "{}", index=0, id="a"), call("g", "{}", index=0, id="b")], [("f", "{}", "a"), ("g", "{}", "b")]),
        # an id that comes late
        ([call("f", "{", index=0), call(None, "}", index=0, id="a")], [("f", "{}", "a")]),
        # interleaved
        (
            [call("f", "{", index=0, id="a"), call("g", "[", index=1, id="b"), call(None, "}", index=0)],
            [("f", "{}", "a"), ("g", "[", "b")],
        ),
        # as it was before tools
        (
            [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}],
            [("f", "{}", "")],
        ),
    ],
)
def test_tool_calls_are_put_together(chunks: list[dict[str, Any]], calls: list[tuple[str, str, str]]) -> None:
    read = sample(envelope(response=[*(delta(**chunk) for chunk in chunks), delta(finish_reason="tool_calls")]))
    assert [(c["name"], c["arguments"], c.get("id", "")) for c in read.tool_calls] == calls


def test_old_functions_are_tools() -> None:
    history = [
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ]
    read = sample(envelope({"messages": history, "functions": [{"name": "f", "description": "d"}]}, [delta("x")]))
    assert read.tools == [{"name": "f", "description": "d"}]
    assert read.messages == [
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}]},
        {"role": "tool", "content": "1", "name": "f"},
    ]


@pytest.mark.parametrize(
    ("body", "seen", "ended"),
    [
        (stream(delta("x"), delta(finish_reason="stop")), "complete", "complete"),
        (stream(delta("x"), delta(finish_reason="stop"), done=False), "complete", "complete"),  # no [DONE]
        (stream(delta("x"), done=False), "complete", "interrupted"),  # neither
        (stream(delta("x"), done=False), "client_abort", "client_abort"),
        (stream(delta("x"), done=False), "interrupted", "interrupted"),
        (stream(delta("x"), delta(finish_reason="stop")), "client_abort", "complete"),  # it had everything
        (stream(delta("x"), {"error": {"message": "out of memory", "type": "server_error"}}), "complete", "error"),
        (stream(delta("x"), done=False) + b"data: upstream timed out\n\n", "complete", "error"),
        (b"", "client_abort", "client_abort"),
        (b": ping\n\n", "interrupted", "interrupted"),
    ],
)
def test_a_sample_says_how_it_ended(body: bytes, seen: str, ended: str) -> None:
    read = sample(envelope(response=body, ended=seen))
    assert read.ended == ended
    assert bool(read.error) == (ended == "error")
    assert read.response == ("x" if b"data" in body else "")


def test_a_stream_that_stops_before_its_second_choice_is_interrupted() -> None:
    body = stream(delta("x", "stop", index=0), {"choices": [], "usage": {"completion_tokens": 9}}, done=False)
    read = sample(envelope({**ASKED, "n": 2}, body))
    assert (read.ended, read.completion_tokens) == ("interrupted", None)
    assert sample(envelope(ASKED, body)).ended == "complete"


def test_an_empty_answer_is_an_error_unless_it_was_cut() -> None:
    read = sample(envelope(response=b""))
    assert (read.ended, read.error, read.response) == ("error", "the body is empty", "")
    assert sample(envelope(response=b"", ended="interrupted")).error == ""


def test_a_stream_that_says_no_usage_has_no_tokens() -> None:
    read = sample(envelope(response=[delta("x"), delta(finish_reason="stop")]))
    assert (read.prompt_tokens, read.completion_tokens, read.reasoning_tokens, read.cached_tokens) == (None,) * 4


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, {"error": {"message": "slow\ndown", "type": "rate_limit", "code": "x"}}, "rate_limit: slow down"),
        (
            400,
            {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
            "BadRequestError: too long",
        ),
        (422, {"detail": "no"}, "no"),
        (404, {"detail": [{"loc": ["body"]}]}, "an error without a message"),
        (500, {"error": "boom", "error_type": "generation"}, "generation: boom"),
        (502, b"<html>Bad gateway</html>", "HTTP 502"),
        (503, b"", "HTTP 503"),
        (307, b"moved", "HTTP 307"),
    ],
)
def test_a_refused_request_is_a_sample_with_its_error(status: int, body: Any, error: str) -> None:
    read = sample(envelope(response=body, status=status))
    assert (read.ended, read.error, read.status, read.response) == ("error", error, status, "")
    assert (read.prompt, read.model) == ("Why?", "asked")


def test_the_first_token_is_timed_by_the_chunk_that_brought_it() -> None:
    role, text, rest = (stream(one, done=False) for one in (delta("", role="assistant"), delta("x"), delta("y")))
    body = role + text + rest + stream(delta(finish_reason="stop"))
    arrivals = [[len(role), 0.1], [len(role + text), 0.4], [len(role + text + rest), 0.6], [len(body), 0.9]]
    assert sample(envelope(response=body, arrivals=arrivals)).ttft_seconds == 0.4
    assert sample(envelope(response=body, arrivals=[[len(body), 0.9]])).ttft_seconds == 0.9
    assert sample(envelope(response=body)).ttft_seconds is None
    assert sample(envelope(response=role, arrivals=[[len(role), 0.1]], ended="client_abort")).ttft_seconds is None
    unstreamed = {"id": "r", "choices": [{"message": {"content": "x"}}]}
    assert sample(envelope(response=unstreamed, arrivals=[[10, 0.1]])).ttft_seconds is None


@pytest.mark.parametrize(
    ("request_", "session"),
    [
        ({"conversation": "c", "metadata": {"session_id": "s"}}, "c"),
        ({"conversation": {"id": "c"}}, "c"),
        ({"metadata": {"session_id": "s"}, "user": "u"}, "s"),
        ({"metadata": {"chat_id": "k"}}, "k"),
        ({"user": "me@example.com"}, "user-533380ba2b0f0ee9"),
        ({"safety_identifier": "me@example.com", "user": "x"}, "user-533380ba2b0f0ee9"),
        ({"previous_response_id": "r", "prompt_cache_key": "k"}, ""),
    ],
)
def test_a_session_is_what_the_request_says_of_itself(request_: dict[str, Any], session: str) -> None:
    read = sample(envelope({**ASKED, **request_}, [delta("x", "stop")]))
    assert read.session == session
    assert sample(envelope({**ASKED, **request_}, [delta("x", "stop")], session="tap")).session == "tap"


def test_an_id_is_the_responses_then_the_requests_then_a_stable_hash() -> None:
    bare = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    asked = {"request_headers": {"x-request-id": "client"}}
    assert sample(envelope(response={"id": "r", **bare}, **asked)).id == "r"
    assert sample(envelope(response=bare, response_headers={"x-request-id": "server"}, **asked)).id == "server"
    assert sample(envelope(response=bare, **asked)).id == "client"
    hashed = sample(envelope(response=bare, time=1.0)).id
    assert hashed == sample(envelope(response=bare, time=1.0)).id
    assert hashed != sample(envelope(response=bare, time=2.0)).id


@pytest.mark.parametrize("given_", ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "nonsense", "00-xyz-1-01"])
def test_a_traceparent_that_is_none_gives_no_trace(given_: str) -> None:
    read = sample(envelope(response=[delta("x", "stop")], request_headers={"traceparent": given_}))
    assert read.trace_id == ""


@pytest.mark.parametrize("path", ["/v1/models", "/v1/embeddings", "/health", "/v1/responses/resp_1/cancel", "/"])
def test_what_generates_no_text_is_no_sample(path: str) -> None:
    assert samples(envelope(response={"object": "list", "data": []}, path=path)) == []
    assert samples(envelope(response={"error": "no"}, path=path, status=404)) == []


def test_an_api_behind_a_path_of_its_own_is_known_by_its_responses() -> None:
    chunks = [delta("x"), delta(finish_reason="stop")]
    assert sample(envelope(response=chunks, path="/ask")).response == "x"
    assert sample(envelope(response=chunks, path="/openai/deployments/d/chat/completions?v=1")).response == "x"
    assert samples(envelope(response=chunks, method="GET", path="/ask")) == []


def test_json_that_is_no_chat_is_one_clear_line() -> None:
    with pytest.raises(WireError, match=r"^response body: JSON that is no response of /v1/chat/completions$"):
        samples(envelope(response={"hello": "world"}))


def test_more_choices_than_anybody_asks_for_are_one_clear_line() -> None:
    with pytest.raises(WireError, match=r"^response body: 1025 choices; allowed: at most 1024$"):
        samples(envelope(response=[delta("x", index=at) for at in range(1025)]))
