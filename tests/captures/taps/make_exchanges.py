"""Writes exchanges.json: what the upstream of the recorded senders is asked and answers.

python make_exchanges.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ID = "chatcmpl-Bx7rT2qN9"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
USAGE = {"prompt_tokens": 24, "completion_tokens": 8, "total_tokens": 32}
ASKED = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is the capital of France? Où est-ce ?"},
]
TOOL_TURN = [
    {"role": "user", "content": "Is Lyon warmer than Paris?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Lyon"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
]
CALL = {"id": "call_2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}


def answer(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": ID, "object": "chat.completion", "created": 1700000000, "model": "small-2024",
            "system_fingerprint": "fp_1", "choices": choices, "usage": USAGE}  # fmt: skip


def choice(index: int, content: str | None, reason: str, **more: Any) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", "content": content, **more}, "finish_reason": reason}


def chunk(
    delta: dict[str, Any] | None, reason: str | None = None, usage: dict[str, int] | None = None
) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": ID, "object": "chat.completion.chunk", "created": 1700000000, "model": "small-2024",
            "system_fingerprint": "fp_1", "choices": choices, "usage": usage}  # fmt: skip


TEXT = "Paris. C'est sur la Seine, à l'île."
EXCHANGES = {
    "plain": {
        "request": {"model": "small", "messages": ASKED, "temperature": 0.2},
        "status": 200,
        "response": answer([choice(0, TEXT, "stop")]),
    },
    "streamed": {
        "request": {"model": "small", "messages": ASKED, "stream": True, "stream_options": {"include_usage": True}},
        "status": 200,
        "stream": [chunk({"role": "assistant", "content": ""}), *(chunk({"content": TEXT[at : at + 7]})
                   for at in range(0, len(TEXT), 7)), chunk({}, "stop"), chunk(None, usage=USAGE)],
    },
    "tools": {
        "request": {"model": "small", "messages": TOOL_TURN, "tools": [TOOL]},
        "status": 200,
        "response": answer([choice(0, None, "tool_calls", tool_calls=[CALL])]),
    },
    "choices": {
        "request": {"model": "small", "messages": ASKED, "n": 2},
        "status": 200,
        "response": answer([choice(0, "Paris.", "stop"), choice(1, "It is Par", "length")]),
    },
    "failure": {
        "request": {"model": "small", "messages": ASKED},
        "status": 500,
        "response": {"error": {"message": "out of memory", "type": "server_error", "code": None, "param": None}},
    },
}  # fmt: skip

if __name__ == "__main__":
    text = json.dumps(EXCHANGES, indent=1, ensure_ascii=False)
    (Path(__file__).parent / "exchanges.json").write_text(text + "\n", encoding="utf-8")
