"""Messages and tools of requests, in the one form that samples have."""

from __future__ import annotations

from typing import Any

import orjson

from palegreen.evaluators.sample import Message, ToolCall
from palegreen.evaluators.wire.shape import mapping, objects, text

_TEXT = ("text", "input_text", "output_text")
_MARKS = {
    "image_url": "[image]",
    "input_image": "[image]",
    "image": "[image]",
    "input_audio": "[audio]",
    "audio_url": "[audio]",
    "audio": "[audio]",
    "file": "[file]",
    "input_file": "[file]",
    "video_url": "[video]",
    "video": "[video]",
}


def content(value: object) -> str:
    """Content as text: parts on lines of their own, one that is no text as `[image]`, `[audio]`, `[file]`, `[part]`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    return "\n".join(item if isinstance(item, str) else _part(mapping(item)) for item in value)


def _part(part: dict[str, Any]) -> str:
    kind = text(part.get("type"))
    if kind in _TEXT or (not kind and "text" in part):
        return text(part.get("text"))
    if kind == "refusal":
        return text(part.get("refusal"))
    return _MARKS.get(kind, "[part]")


def messages(value: object) -> list[Message]:
    """Messages of a chat request; what is no message is left out."""
    return [message(item) for item in objects(value)]


def message(given: dict[str, Any]) -> Message:
    """One message. The old role `function` reads as `tool`, the old `function_call` as a tool call."""
    role = text(given.get("role"))
    made = Message(role="tool" if role == "function" else role, content=content(given.get("content")))
    if calls := tool_calls(given):
        made["tool_calls"] = calls
    if call_id := text(given.get("tool_call_id")):
        made["tool_call_id"] = call_id
    if name := text(given.get("name")):
        made["name"] = name
    return made


def tool_calls(given: dict[str, Any]) -> list[ToolCall]:
    """Tool calls of a whole message, in the APIs' form or in that of samples."""
    calls = objects(given.get("tool_calls"))
    if legacy := mapping(given.get("function_call")):
        calls.append({"function": legacy})
    return [tool_call(call) for call in calls]


def tool_call(call: dict[str, Any]) -> ToolCall:
    """One call: a function's, a custom tool's (its input stands as the arguments), or as samples have it."""
    inner = mapping(call.get("function") or call.get("custom") or call)
    made = ToolCall(name=text(inner.get("name")), arguments=arguments(inner.get("arguments", inner.get("input"))))
    if call_id := text(call.get("id")):
        made["id"] = call_id
    return made


def arguments(value: object) -> str:
    """Arguments as text: some servers give the object itself."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # nested deeper than it writes
        return ""


def tools(*lists: object) -> list[dict[str, Any]]:
    """Declared functions of `tools` (either API's form, or that of samples) and of the old `functions`.

    Tools that the provider runs itself (web search and the like) are none.
    """
    found = []
    for tool in (tool for value in lists for tool in objects(value)):
        inner = mapping(tool.get("function") or tool.get("custom") or tool)
        if name := text(inner.get("name")):
            made: dict[str, Any] = {"name": name}
            if description := text(inner.get("description")):
                made["description"] = description
            if isinstance(parameters := inner.get("parameters"), dict):
                made["parameters"] = parameters
            found.append(made)
    return found


def json_schema(schema: object) -> dict[str, Any] | None:
    """`response_format` for a schema that a request gives in an engine's own way."""
    if isinstance(schema, dict):
        return {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}
    return None


def response_format(request: dict[str, Any]) -> dict[str, Any] | None:
    """`response_format`, or what vLLM's `structured_outputs` and `guided_json` mean by it."""
    if isinstance(given := request.get("response_format"), dict):
        return given
    structured = mapping(request.get("structured_outputs"))
    return json_schema(structured.get("json") or request.get("guided_json"))
