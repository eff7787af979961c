"""GenAI attributes of spans and events, whatever convention and version they follow, as samples and steps.

Conventions, newest first: OpenTelemetry's `gen_ai.input.messages` and so on (a JSON string on spans, structured on
events); its events by message, `gen_ai.user.message` ... `gen_ai.choice`, up to version 1.36; the attributes with an
index of OpenLLMetry, `gen_ai.prompt.0.content`; those of OpenInference, `llm.input_messages.0.message.content`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from palegreen.evaluators.sample import CANARY, Message, Sample, Step, ToolCall
from palegreen.evaluators.wire import message as wire
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import loads
from palegreen.evaluators.wire.shape import count, mapping, objects, text, texts
from palegreen.evaluators.wire.telemetry import Event, Span

Kind = Literal["model", "retrieval", "tool", "embedding", "agent"]

DETAILS = "gen_ai.client.inference.operation.details"
CHOICE = "gen_ai.choice"
# Events with attributes of a span; the last two up to version 1.27.
_CARRIERS = (DETAILS, "gen_ai.content.prompt", "gen_ai.content.completion")

_KINDS: dict[str, Kind] = {
    "chat": "model", "text_completion": "model", "generate_content": "model", "completion": "model", "llm": "model",
    "retrieval": "retrieval", "retriever": "retrieval",
    "execute_tool": "tool", "tool": "tool",
    "embeddings": "embedding", "embedding": "embedding",
    "invoke_agent": "agent", "agent": "agent",
}  # fmt: skip
_KIND_KEYS = ("gen_ai.operation.name", "llm.request.type", "openinference.span.kind", "traceloop.span.kind")
_MODEL_KEYS = ("gen_ai.response.model", "llm.model_name", "gen_ai.request.model", "embedding.model_name")
_CONTENT = ("gen_ai.output.messages", "gen_ai.completion.0.", "llm.output_messages.")
_NAME_KEYS: dict[Kind, tuple[str, ...]] = {
    "model": _MODEL_KEYS,
    "embedding": _MODEL_KEYS,
    "retrieval": ("gen_ai.data_source.id", "traceloop.entity.name"),
    "tool": ("gen_ai.tool.name", "tool.name", "traceloop.entity.name"),
    "agent": ("gen_ai.agent.name", "agent.name", "traceloop.entity.name"),
}
_SESSION_KEYS = ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id")
_CANARY_KEYS = ("user.id", "enduser.id", "llm.user", "gen_ai.request.user", "gen_ai.openai.request.user")
_CANARY_HEADER = "http.request.header.x-palegreen-canary"
_FINGERPRINT_KEYS = (
    "openai.response.system_fingerprint",
    "gen_ai.openai.response.system_fingerprint",
    "gen_ai.response.system_fingerprint",
    "gen_ai.openai.system_fingerprint",
)
_PROMPT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_COMPLETION_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
_CACHED_TOKENS = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_REASONING_TOKENS = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)
_FIRST_TOKEN_EVENTS = ("First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk")
# OpenTelemetry's, Anthropic's and Gemini's words for OpenAI's.
_FINISH = {
    "tool_call": "tool_calls", "tool_use": "tool_calls", "function_call": "tool_calls",
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "safety": "content_filter",
}  # fmt: skip
_MODALITIES = {"image": "[image]", "audio": "[audio]", "video": "[video]", "document": "[file]", "file": "[file]"}
_LONGEST_NAME = 64
_LONGEST_ID = 200
_LONGEST_ERROR = 300
_WHERE = "OTLP attribute"


class Answer(NamedTuple):
    """One choice of a model call."""

    choice: int
    text: str
    reasoning: str
    tool_calls: list[ToolCall]
    finish_reason: str


def kind(attributes: Mapping[str, Any]) -> Kind | None:
    """Which link of a chain a span is; None if none that is told apart. What holds an answer is a model's."""
    given = (text(attributes.get(key)).lower() for key in _KIND_KEYS)
    known = next((_KINDS[name] for name in given if name in _KINDS), None)
    return known or ("model" if any(key.startswith(_CONTENT) for key in attributes) else None)


def step(span: Span, link: Kind) -> Step:
    """How long the link took. Its name is what the span says the model, tool, data source or agent is called,
    else the span's, which the conventions want to be of few values."""
    return Step(
        kind=link,
        name=(_first(span.attributes, _NAME_KEYS[link]) or span.name)[:_LONGEST_NAME],
        seconds=max(span.end - span.start, 0.0),
        time=span.start,
        trace_id=span.trace_id,
        model=_first(span.attributes, _MODEL_KEYS),
        failed=span.failed,
    )


def samples(span: Span, events: Iterable[Event] = ()) -> list[Sample]:
    """The choices of a model call: its span, and events about it that came apart from it.

    Without any content (senders leave it out unless told otherwise) there is one sample, marked as truncated.
    """
    events = [*span.events, *events]
    attributes = _carried(span.attributes, events)
    attributes = _openinference(attributes) | attributes
    reasons = texts(attributes.get("gen_ai.response.finish_reasons"))
    found = answers(attributes, events)
    error = _error(span, attributes)
    missing = not found and not error
    found = found or [Answer(0, "", "", [], "")]
    return [
        Sample(
            response=answer.text,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
            finish_reason=_finish(answer.finish_reason or (reasons[at] if at < len(reasons) else "")),
            choice=answer.choice,
            id=text(attributes.get("gen_ai.response.id"))[:_LONGEST_ID]
            or "-".join(filter(None, (span.trace_id, span.span_id))),
            time=span.start,
            model=_first(attributes, _MODEL_KEYS),
            requested_model=text(attributes.get("gen_ai.request.model")),
            session=_session(attributes),
            trace_id=span.trace_id,
            messages=_conversation(attributes, events),
            tools=_tools(attributes),
            response_format=_response_format(attributes),
            # Usage is the call's: of several choices the first has the prompt's, so that sums are right.
            prompt_tokens=_count(attributes, _PROMPT_TOKENS) if at == 0 else None,
            cached_tokens=_count(attributes, _CACHED_TOKENS) if at == 0 else None,
            completion_tokens=_count(attributes, _COMPLETION_TOKENS) if len(found) == 1 else None,
            reasoning_tokens=_count(attributes, _REASONING_TOKENS) if len(found) == 1 else None,
            ttft_seconds=_first_token(span, attributes),
            duration_seconds=span.end - span.start if span.end > span.start else None,
            system_fingerprint=_first(attributes, _FINGERPRINT_KEYS),
            error=error,
            ended="error" if error else "complete",
            truncated=missing,
        )
        for at, answer in enumerate(found)
    ]


def _session(attributes: Mapping[str, Any]) -> str:
    if _CANARY_HEADER in attributes or any(attributes.get(key) == CANARY for key in _CANARY_KEYS):
        return CANARY
    return _first(attributes, _SESSION_KEYS)[:_LONGEST_ID]


def answers(attributes: Mapping[str, Any], events: Sequence[Event] = ()) -> list[Answer]:
    """What the model gave, from the first convention that says anything."""
    attributes = _carried(attributes, events)
    found = [_answer_of_parts(at, given) for at, given in enumerate(_structured(attributes, "gen_ai.output.messages"))]
    if not found:
        found = [_answer_of_choice(event) for event in events if event.name == CHOICE]
    if not found:
        indexed = _indexed(attributes, "gen_ai.completion", "llm.output_messages")
        found = [_answer_of_message(at, given, text(given.get("finish_reason"))) for at, given in enumerate(indexed)]
    return found


def _carried(attributes: Mapping[str, Any], events: Iterable[Event]) -> dict[str, Any]:
    """The attributes, and those that events carry for the span."""
    found = dict(attributes)
    for event in events:
        if event.name in _CARRIERS:
            found = event.attributes | found
    return found


# Messages with parts


def _answer_of_parts(at: int, given: dict[str, Any]) -> Answer:
    made = _messages_of_parts(given)
    parts = objects(given.get("parts"))
    thought = [text(part.get("content")) for part in parts if part.get("type") in ("reasoning", "thinking")]
    calls = [call for one in made for call in one.get("tool_calls", [])]
    said = "\n".join(one["content"] for one in made if one["content"])
    return Answer(at, said, "\n".join(thought), calls, text(given.get("finish_reason")))


def _messages_of_parts(given: dict[str, Any]) -> list[Message]:
    """One message, or one for each answer of a tool."""
    if "parts" not in given:
        return [wire.message(given)]
    said: list[str] = []
    calls: list[dict[str, Any]] = []
    answered: list[Message] = []
    for part in objects(given["parts"]):
        match part.get("type"):
            case "text":
                said.append(text(part.get("content")))
            case "tool_call":
                calls.append(part)
            case "tool_call_response":
                # The schema says `response`; `result` occurs too.
                answer = wire.arguments(part.get("response", part.get("result")))
                made = Message(role="tool", content=answer)
                if call_id := text(part.get("id")):
                    made["tool_call_id"] = call_id
                answered.append(made)
            case "reasoning" | "thinking":
                continue
            case _:
                said.append(_MODALITIES.get(text(part.get("modality")), "[part]"))
    if answered and not said and not calls:
        return answered
    whole = {"role": given.get("role"), "content": "\n".join(said), "tool_calls": calls, "name": given.get("name")}
    return [wire.message(whole), *answered]


def _conversation(attributes: Mapping[str, Any], events: Iterable[Event]) -> list[Message]:
    instructions = _structured(attributes, "gen_ai.system_instructions")
    system = _messages_of_parts({"role": "system", "parts": instructions}) if instructions else []
    given = _structured(attributes, "gen_ai.input.messages")
    if given:
        return system + [made for one in given for made in _messages_of_parts(one)]
    if told := [_message_of_event(event) for event in events if _role(event)]:
        return system + told
    return system + [wire.message(one) for one in _indexed(attributes, "gen_ai.prompt", "llm.input_messages")]


# Events, one a message


def _role(event: Event) -> str:
    name = event.name.removeprefix("gen_ai.")
    role = name.removesuffix(".message")
    return role if role != name and name != event.name and role in ("system", "user", "assistant", "tool") else ""


def _message_of_event(event: Event) -> Message:
    body = _body(event)
    return wire.message({"role": _role(event), "tool_call_id": body.get("id")} | body)


def _answer_of_choice(event: Event) -> Answer:
    body = _body(event)
    said = body.get("message")
    given = {"tool_calls": body.get("tool_calls")} | (mapping(said) or {"content": said})
    at = body.get("index")
    return _answer_of_message(at if isinstance(at, int) else 0, given, text(body.get("finish_reason")))


def _body(event: Event) -> dict[str, Any]:
    """Of a log record; events of spans have it in their attributes."""
    return mapping(event.body) or {
        key: value if key == "content" else _parsed(value) for key, value in event.attributes.items()
    }


def _answer_of_message(at: int, given: dict[str, Any], reason: str) -> Answer:
    thought = text(given.get("reasoning_content")) or text(given.get("reasoning"))
    return Answer(at, wire.content(given.get("content")), thought, wire.tool_calls(given), reason)


# Attributes with an index


def _indexed(attributes: Mapping[str, Any], *names: str) -> list[dict[str, Any]]:
    """Messages of attributes such as `gen_ai.prompt.0.tool_calls.0.name`, in the shape of a chat API's."""
    lists = (objects(_unflattened(attributes, f"{name}.")) or _structured(attributes, name) for name in names)
    found = []
    for given in next(filter(None, lists), []):
        one = dict(mapping(given.get("message")) or given)  # OpenInference: llm.input_messages.0.message.role
        one["content"] = _content(one.get("content"))
        if parts := objects(one.get("contents")):
            one["content"] = [mapping(part.get("message_content")) for part in parts]
        one["tool_calls"] = [mapping(call.get("tool_call")) or call for call in objects(one.get("tool_calls"))]
        found.append(one)
    return found


def _unflattened(attributes: Mapping[str, Any], prefix: str) -> Any:
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(prefix):
            *path, last = key.removeprefix(prefix).split(".", 8)
            node: Any = tree
            for name in path:
                node = node.setdefault(name, {}) if isinstance(node, dict) else None
            if isinstance(node, dict):
                node[last] = value
    return _listed(tree)


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key.isascii() and key.isdigit() and len(key) < 7 for key in node):
        return [_listed(node[key]) for key in sorted(node, key=int)]
    return {key: _listed(value) for key, value in node.items()}


def _tools(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = _structured(attributes, "gen_ai.tool.definitions")
    if not found:
        indexed = objects(_unflattened(attributes, "llm.request.functions."))
        found = [one | {"parameters": _parsed(one.get("parameters"))} for one in indexed]
    if not found:
        held = objects(_unflattened(attributes, "llm.tools."))
        found = [mapping(_parsed(mapping(one.get("tool")).get("json_schema"))) for one in held]
    return wire.tools(found)


# Single values


def _openinference(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenInference has no attribute for and leaves in the exchange itself, which it repeats as JSON."""
    if "openinference.span.kind" not in attributes:
        return {}
    output = mapping(_parsed(attributes.get("output.value")))
    asked = mapping(_parsed(attributes.get("llm.invocation_parameters")))
    return {
        "gen_ai.request.model": asked.get("model"),
        "gen_ai.response.id": output.get("id"),
        "gen_ai.response.system_fingerprint": output.get("system_fingerprint"),
        "gen_ai.response.finish_reasons": [text(one.get("finish_reason")) for one in objects(output.get("choices"))]
        or attributes.get("llm.finish_reason"),
    }


def _structured(attributes: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Objects of an attribute that is a JSON string on spans and structured on events."""
    return objects(_parsed(attributes.get(key)))


def _parsed(value: Any) -> Any:
    """A JSON array or object that stands in a string; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(WireError):
            return loads(value.encode("utf-8", "replace"), _WHERE)
    return value


def _content(value: Any) -> Any:
    """Content of which OpenLLMetry makes one string even where it has parts."""
    if isinstance(value, str) and value.startswith('[{"type"'):
        return _parsed(value)
    return value


def _response_format(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    schema = _parsed(attributes.get("gen_ai.request.structured_output_schema"))
    if isinstance(schema, dict):
        return wire.json_schema(schema)
    return {"type": "json_object"} if attributes.get("gen_ai.output.type") == "json" else None


def _first_token(span: Span, attributes: Mapping[str, Any]) -> float | None:
    given = attributes.get("gen_ai.response.time_to_first_chunk")
    if isinstance(given, (int, float)) and given >= 0:
        return float(given)
    times = [event.time for event in span.events if event.name in _FIRST_TOKEN_EVENTS and event.time >= span.start]
    return min(times) - span.start if times else None


def _error(span: Span, attributes: Mapping[str, Any]) -> str:
    if not span.failed and not attributes.get("error.type"):
        return ""
    line = ": ".join(filter(None, (text(attributes.get("error.type")), " ".join(span.message.split()))))
    return (line or "an error without a message")[:_LONGEST_ERROR]


def _finish(reason: str) -> str:
    reason = reason.lower()
    return _FINISH.get(reason, reason)


def _first(attributes: Mapping[str, Any], keys: Iterable[str]) -> str:
    return next((value for key in keys if (value := text(attributes.get(key)))), "")


def _count(attributes: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    return next((value for key in keys if (value := count(attributes.get(key))) is not None), None)
