"""Recorded exchanges read as the official client reads the same bytes."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai.lib.streaming._deltas import accumulate_delta
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from support.wire import CAPTURES, capture, captured, samples

from palegreen.evaluators.sample import Sample

NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
CHAT = [name for name in NAMES if "-chat" in name and "bad-request" not in name]
COMPLETIONS = [name for name in NAMES if "-completions" in name]
RESPONSES = [name for name in NAMES if "-responses" in name]


def client(exchange: dict[str, Any]) -> openai.OpenAI:
    """The official client, for which the network gives the recorded bytes."""

    def answer(_: httpx.Request) -> httpx.Response:
        body, headers = exchange["response"].encode(), exchange["response_headers"]
        return httpx.Response(exchange["status"], headers=headers, content=body)

    transport = httpx.Client(transport=httpx.MockTransport(answer))
    return openai.OpenAI(api_key="none", base_url="http://engine/v1", http_client=transport, max_retries=0)


def request(exchange: dict[str, Any]) -> dict[str, Any]:
    """What the client takes as arguments of its own; the rest goes by as `extra_body`."""
    extra = ("documents", "conversation")
    given = {key: value for key, value in exchange["request"].items() if key not in extra}
    given.pop("stream", None)
    return given


def chat(exchange: dict[str, Any]) -> ChatCompletion:
    """What the client makes of a chat.

    The chunks of a stream are added up by its own `accumulate_delta`; its helper for whole streams refuses a finish
    reason of `length` and fails where the second choice comes first, as llama.cpp's does.
    """
    with client(exchange) as api:
        if not exchange["request"].get("stream"):
            return api.chat.completions.create(**request(exchange))
        chunks = list(api.chat.completions.create(**request(exchange), stream=True))
    whole = chunks[0].to_dict() | {"object": "chat.completion", "usage": None}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        whole["usage"] = chunk.usage or whole["usage"]
        for choice in chunk.choices:
            blank = {"index": choice.index, "message": {"role": "assistant"}, "logprobs": {"content": []}}
            held = choices.setdefault(choice.index, blank)
            accumulate_delta(held["message"], choice.delta.to_dict() | {"role": None})
            held["finish_reason"] = choice.finish_reason
            held["logprobs"]["content"] += (choice.logprobs and choice.logprobs.to_dict()["content"]) or []
    return ChatCompletion.model_validate(whole | {"choices": [choices[index] for index in sorted(choices)]})


def usage(read: Sample) -> tuple[int | None, ...]:
    return (read.prompt_tokens, read.completion_tokens, read.cached_tokens, read.reasoning_tokens)


@pytest.mark.parametrize("name", CHAT)
def test_a_chat_is_what_the_official_client_made_of_it(name: str) -> None:
    theirs, ours = chat(capture(name)), samples(captured(name))
    assert len(ours) == len(theirs.choices)
    for sample, choice in zip(ours, theirs.choices, strict=True):
        assert sample.response == (choice.message.content or "") + (choice.message.refusal or "")
        assert sample.finish_reason == choice.finish_reason
        calls = choice.message.tool_calls or []
        assert [(c["name"], c["arguments"], c["id"]) for c in sample.tool_calls] == [
            (c.function.name, c.function.arguments, c.id) for c in calls if c.type == "function"
        ]
        tokens = (choice.logprobs.content if choice.logprobs else None) or []
        assert (sample.logprobs or []) == [token.logprob for token in tokens]
        assert (sample.id, sample.model, sample.choice) == (theirs.id, theirs.model, choice.index)
        assert sample.system_fingerprint == (theirs.system_fingerprint or "")
        assert sample.reasoning == (getattr(choice.message, "reasoning_content", None) or "")
    if len(ours) == 1 and theirs.usage:
        into, out = theirs.usage.prompt_tokens_details, theirs.usage.completion_tokens_details
        details = (into.cached_tokens if into else None, out.reasoning_tokens if out else None)
        assert usage(ours[0]) == (theirs.usage.prompt_tokens, theirs.usage.completion_tokens, *details)


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_completion_is_what_the_official_client_made_of_it(name: str) -> None:
    exchange, ours = capture(name), samples(captured(name))
    with client(exchange) as api:
        streamed = bool(exchange["request"].get("stream"))
        theirs = api.completions.create(**request(exchange), stream=streamed)
        chunks = list(theirs) if streamed else [theirs]
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index, "")
    assert {sample.choice: sample.response for sample in ours} == texts
    assert {sample.choice: sample.finish_reason for sample in ours} == reasons
    assert {(sample.id, sample.model) for sample in ours} == {(chunks[0].id, chunks[0].model)}
    if len(ours) == 1:
        assert (ours[0].prompt_tokens, ours[0].completion_tokens) == (
            chunks[-1].usage.prompt_tokens,
            chunks[-1].usage.completion_tokens,
        )


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_what_the_official_client_made_of_it(name: str) -> None:
    exchange, (ours,) = capture(name), samples(captured(name))
    with client(exchange) as api:
        if exchange["request"].get("stream"):
            events = list(api.responses.create(**request(exchange), stream=True))
            theirs: Response = events[-1].response  # type: ignore[union-attr]  # the last one has it
        else:
            theirs = api.responses.create(**request(exchange))
    assert ours.response == theirs.output_text
    assert (ours.id, ours.model) == (theirs.id, theirs.model)
    assert theirs.usage is not None
    assert (ours.prompt_tokens, ours.completion_tokens) == (theirs.usage.input_tokens, theirs.usage.output_tokens)
    calls = [(item.name, item.arguments, item.call_id) for item in theirs.output if item.type == "function_call"]
    assert [(call["name"], call["arguments"], call["id"]) for call in ours.tool_calls] == calls


def test_an_engine_that_refuses_is_a_sample_with_its_error() -> None:
    (read,) = samples(captured("llamacpp-chat-bad-request"))
    assert (read.status, read.ended, read.response) == (400, "error", "")
    assert read.error == "invalid_request_error: Expected 'messages' to be an array"
    with pytest.raises(openai.BadRequestError), client(capture("llamacpp-chat-bad-request")) as api:
        api.chat.completions.create(model="m", messages=[])


@pytest.mark.parametrize("name", [name for name in NAMES if "stream" in name])
def test_a_stream_that_is_cut_anywhere_gives_the_text_so_far(name: str) -> None:
    exchange = capture(name)
    body, whole = exchange["response"].encode(), samples(captured(name))
    for size in range(0, len(body), max(1, len(body) // 40)):
        envelope = captured(name, ended="interrupted")
        for sample in samples(envelope._replace(parts=[envelope.parts[0], body[:size]])):
            full = next(one for one in whole if one.choice == sample.choice)
            assert full.response.startswith(sample.response)
            assert full.reasoning.startswith(sample.reasoning)
            for ours, theirs in zip(sample.tool_calls, full.tool_calls, strict=False):
                assert theirs["arguments"].startswith(ours["arguments"])
            assert sample.ended == "interrupted" or sample.finish_reason
