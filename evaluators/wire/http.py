"""An HTTP exchange as samples: which API it speaks, what it asked, what came back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation
from palegreen.evaluators.wire import chat, chunks, completions, native, responses
from palegreen.evaluators.wire.body import as_utf8, decoded
from palegreen.evaluators.wire.choices import Exchange, samples
from palegreen.evaluators.wire.chunks import Body
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import loads, recovered
from palegreen.evaluators.wire.reply import Asked, Chunk, Reply, error_of
from palegreen.evaluators.wire.shape import mapping, text

WHERE = "request body"


class Api(NamedTuple):
    """How requests and responses of one API are read."""

    asked: Callable[[dict[str, Any]], Asked]
    replied: Callable[[Iterable[Chunk]], Reply]


CHAT = Api(chat.asked, chat.replied)
COMPLETIONS = Api(completions.asked, completions.replied)
RESPONSES = Api(responses.asked, responses.replied)
OLLAMA = Api(native.asked_ollama, native.replied_ollama)
GENERATE = Api(native.asked_generate, native.replied_generate)

# By how a path ends: gateways put parts of their own before it.
_PATHS = (
    ("/chat/completions", CHAT),
    ("/completions", COMPLETIONS),
    ("/responses", RESPONSES),
    ("/api/chat", OLLAMA),
    ("/api/generate", OLLAMA),
    ("/generate", GENERATE),
    ("/generate_stream", GENERATE),
)
# By the field `object` of a response, where the path says nothing.
_OBJECTS = {
    "chat.completion": CHAT,
    "chat.completion.chunk": CHAT,
    "text_completion": COMPLETIONS,
    "response": RESPONSES,
}


def decode(envelope: Envelope, defaults: Defaults) -> list[Observation]:
    """Samples of an exchange; none if it is of an API that generates no text (models, embeddings, health).

    Raises:
        WireError: a body that is not what it says it is.
    """
    meta, parts = envelope
    if len(parts) != 2:
        raise WireError(f"http: {len(parts)} parts; allowed: 2, request body and response body")
    route = text(meta.get("path")).partition("?")[0]
    api = next((api for ending, api in _PATHS if route.endswith(ending)), None)
    failed = (meta.get("status") or 0) >= 300
    if meta.get("method", "POST") != "POST" or (api is None and failed):
        return []
    whole = meta.get("ended", "complete") == "complete"
    body = _response(meta, parts[1], whole, failed)
    api = api or _by_object(body)
    if api is None:
        return []
    request = _request(meta, parts[0], whole and not failed)
    if failed:
        said = error_of(body.chunks[0][0]) if body.chunks else ""
        reply = Reply(error=said or f"HTTP {meta['status']}")
    else:
        reply = api.replied(body.chunks)
        if whole and body.chunks and reply == Reply() and not meta.get("response_truncated"):
            raise WireError(f"{chunks.WHERE}: JSON that is no response of {route[:100] or 'a known API'}")
    return samples(Exchange(meta, parts, route, request, api.asked(request), reply, body), defaults)


def _request(meta: dict[str, Any], part: bytes, served: bool) -> dict[str, Any]:
    """The request; empty if it cannot be read and was not served either."""
    headers = mapping(meta.get("request_headers"))
    cut = bool(meta.get("request_truncated"))
    try:
        body = decoded(part, text(headers.get("content-encoding")), WHERE, cut=cut)
        body = as_utf8(body, text(headers.get("content-type")), WHERE)
        if cut:
            return recovered(body, keep_cut=False)  # of half a conversation nobody can tell what was asked last
        request = loads(body, WHERE)
        if not isinstance(request, dict):
            raise WireError(f"{WHERE}: JSON that is no object")
        return request
    except WireError:
        if served:
            raise
        return {}


def _response(meta: dict[str, Any], part: bytes, whole: bool, failed: bool) -> Body:
    headers = mapping(meta.get("response_headers"))
    content_type = text(headers.get("content-type")) or text(meta.get("content_type"))
    encoding = text(headers.get("content-encoding")) or text(meta.get("content_encoding"))
    try:
        return chunks.read(part, content_type, encoding, cut=not whole or bool(meta.get("response_truncated")))
    except WireError:
        if failed:
            return Body([])  # a page of some proxy's
        raise


def _by_object(body: Body) -> Api | None:
    if not body.chunks:
        return None
    first, _ = body.chunks[0]
    return _OBJECTS.get(text(first.get("object")) or text(mapping(first.get("response")).get("object")))
