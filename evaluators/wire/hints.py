"""What a request says of itself beside its question: the conversation that it belongs to, its trace, its id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from palegreen.evaluators.sample import CANARY
from palegreen.evaluators.wire.shape import mapping, text

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-|\Z)")
_CONVERSATIONS = ("session_id", "conversation_id", "thread_id", "chat_id")
_LONGEST = 200


def session(request: Mapping[str, Any]) -> str:
    """The session that a request names, else an empty text.

    In this order: `conversation` (responses API), a key of `metadata` that names a session, a conversation, a thread
    or a chat, and last the user (`safety_identifier`, `user`), hashed, as it may be an address. Not used:
    `previous_response_id`, which differs in each turn, and `prompt_cache_key`, which applications share among users.
    Canaries, which are no user's, all have the session CANARY.
    """
    if request.get("user") == CANARY:
        return CANARY
    given = request.get("conversation")
    found = text(given) or text(mapping(given).get("id"))
    if not found and (metadata := mapping(request.get("metadata"))):
        found = next((value for key in _CONVERSATIONS if (value := text(metadata.get(key)))), "")
    if not found and (user := text(request.get("safety_identifier")) or text(request.get("user"))):
        found = f"user-{digest(user.encode())}"
    return found[:_LONGEST]


def trace_id(headers: Mapping[str, str]) -> str:
    """The trace of a W3C `traceparent`, else an empty text."""
    found = _TRACEPARENT.match(text(headers.get("traceparent")).strip().lower())
    return found[1] if found and found[1].strip("0") else ""


def request_id(response: Mapping[str, str], request: Mapping[str, str]) -> str:
    """`x-request-id` as the server gave it, else as the client did."""
    return (text(response.get("x-request-id")) or text(request.get("x-request-id")))[:_LONGEST]


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits that stay the same for the same parts."""
    mixed = blake2b(digest_size=8)
    for part in parts:
        mixed.update(len(part).to_bytes(8, "big"))
        mixed.update(part)
    return mixed.hexdigest()
