"""LiteLLM's generic API callback: standard logging payloads as samples.

Source: litellm 1.106, `types/utils.py: StandardLoggingPayload`. Messages and response are in the form of the OpenAI API
whatever the provider, so each payload is read by the decoder of that API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation, Sample
from palegreen.evaluators.wire import jsontext
from palegreen.evaluators.wire.body import decoded
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.shape import count, mapping, text, texts

MAX_BODY = 64 << 20

_PATHS = {
    "completion": "/v1/chat/completions",
    "text_completion": "/v1/completions",
    "responses": "/v1/responses",
}
_ASKED = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/responses": "input"}
_CODES = range(400, 600)
KEEP = "palegreen-keep"
"""Tag of a request that is to be scored whatever the rate."""

_REDACTED = "redacted-by-litellm"  # what stands for texts with turn_off_message_logging


def decode(envelope: Envelope, decode_http: Callable[[Envelope], list[Observation]]) -> list[Observation]:
    """Samples of a POST: a JSON array, one object, or an object a line.

    Calls that are no completion (embeddings, images, ...) are left out, as are lines of ndjson that are damaged.

    Args:
        envelope: of kind litellm.
        decode_http: decoder of envelopes of kind http.

    Raises:
        WireError: not JSON, or no payload in it could be read.
    """
    encoding = str(envelope.meta.get("content_encoding", ""))
    payloads = _payloads(decoded(b"".join(envelope.parts), encoding, "LiteLLM body", limit=MAX_BODY))
    found: list[Observation] = []
    refused: WireError | None = None
    for payload in payloads:
        try:
            found += _of_payload(payload, envelope, decode_http)
        except WireError as error:
            refused = error
    if refused and not found:
        raise refused
    return found


def _payloads(body: bytes) -> list[dict[str, Any]]:
    try:
        whole = jsontext.loads(body, "LiteLLM body")
    except WireError as error:
        lines = [_line(line) for line in body.splitlines() if line.strip()]
        whole = [line for line in lines if line is not None]
        if not whole:
            raise error from None
    payloads = [item for item in (whole if isinstance(whole, list) else [whole]) if _is_payload(item)]
    if whole and not payloads:
        raise WireError("LiteLLM body: no standard logging payload in it (an object with call_type and status)")
    return payloads


def _line(line: bytes) -> Any:
    try:
        return jsontext.loads(line, "LiteLLM body")
    except WireError:
        return None


def _is_payload(item: object) -> bool:
    return isinstance(item, dict) and "call_type" in item and "status" in item


def _of_payload(
    payload: dict[str, Any], envelope: Envelope, decode_http: Callable[[Envelope], list[Observation]]
) -> list[Observation]:
    call = text(payload.get("call_type"))
    path = _PATHS.get(call) or _PATHS.get(call.removeprefix("a"))
    if path is None:
        return []
    asked = mapping(payload.get("model_parameters"))
    model = text(payload.get("model_group")) or text(payload.get("model"))
    request = asked | {"model": model, "stream": False, _ASKED[path]: payload.get("messages")}
    failed = payload.get("status") == "failure"
    begun, ended = _time(payload.get("startTime")), _time(payload.get("endTime"))
    http: dict[str, Any] = {
        "tap": envelope.meta.get("tap", "litellm"),
        "kind": "http",
        "time": begun or envelope.meta.get("time", 0.0),
        "sampled": envelope.meta.get("sampled", "rate"),
        "method": "POST",
        "path": path,
        "status": _code(payload) if failed else 200,
        "content_type": "application/json",
        "request_headers": {"content-type": "application/json"},
        "response_headers": {"content-type": "application/json"},
        "ended": "complete",
    }
    if ended > begun > 0:
        http["duration"] = ended - begun
    observations = decode_http(Envelope(http, [_json(request), _json(_response(payload, failed, path))]))
    for sample in observations:
        if isinstance(sample, Sample):
            _label(sample, payload, begun, ended, alone=len(observations) == 1)
    return observations


def _response(payload: dict[str, Any], failed: bool, path: str) -> Any:
    response = payload.get("response")
    if failed:
        told = mapping(payload.get("error_information"))
        message = text(told.get("error_message")) or text(payload.get("error_str")) or "failed"
        return {"error": {"type": text(told.get("error_class")), "message": message}}
    if isinstance(response, str):
        choice = {"text": response} if path == "/v1/completions" else {"message": {"content": response}}
        return {"id": payload.get("id"), "model": payload.get("model"), "choices": [{"index": 0} | choice]}
    return response


def _label(sample: Sample, payload: dict[str, Any], begun: float, ended: float, alone: bool) -> None:
    """What the payload knows beyond the exchange."""
    metadata = mapping(payload.get("metadata"))
    sample.id = sample.id or text(payload.get("id"))
    sample.team = text(metadata.get("user_api_key_team_alias")) or text(metadata.get("user_api_key_team_id"))
    # Its trace is no trace of OpenTelemetry's but what it calls a session too: litellm_session_id sets it.
    sample.session = sample.session or text(payload.get("session_id")) or text(payload.get("trace_id"))
    if tags := texts(payload.get("request_tags")):
        sample.labels["tags"] = ",".join(tags)
        if KEEP in tags:
            sample.sampled = "kept"
    if alone and not sample.error and sample.prompt_tokens is None and sample.completion_tokens is None:
        sample.prompt_tokens = count(payload.get("prompt_tokens")) or None  # 0 where it does not know
        sample.completion_tokens = count(payload.get("completion_tokens")) or None
    if sample.response == _REDACTED:
        sample.response, sample.messages, sample.truncated = "", [], True
    first = _time(payload.get("completionStartTime"))
    if payload.get("stream") is True and 0 < begun <= first <= ended:
        sample.ttft_seconds = first - begun


def _code(payload: dict[str, Any]) -> int:
    code = text(mapping(payload.get("error_information")).get("error_code"))
    return int(code) if code.isascii() and code.isdigit() and len(code) == 3 and int(code) in _CODES else 500


def _time(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else 0.0


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):
        raise WireError("LiteLLM body: a payload that is nested too deeply") from None
