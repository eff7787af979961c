"""Feedback of users: `{"response_id": ID, "kind": "thumbs_up"}`, or a `score` instead of the kind."""

from __future__ import annotations

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Feedback
from palegreen.evaluators.wire.body import decoded
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsontext import loads
from palegreen.evaluators.wire.shape import text

_ALLOWED = '{"response_id": ID, "kind": "thumbs_up" or "thumbs_down"} or "score" from 0 to 1, or -1'
_LONGEST_ID = 256
MAX_BODY = 64 << 10


def decode(envelope: Envelope) -> list[Feedback]:
    """The feedback of an envelope of kind feedback. Raises WireError."""
    meta = envelope.meta
    encoding = str(meta.get("content_encoding", ""))
    body = decoded(b"".join(envelope.parts), encoding, "feedback", limit=MAX_BODY)
    return [parse(body, float(meta.get("time", 0.0)), str(meta.get("tap", "")))]


def parse(body: bytes, time: float = 0.0, tap: str = "") -> Feedback:
    """Feedback of a body of JSON. A score above one half is thumbs up, below it thumbs down, one half is refused.

    Raises:
        WireError: anything else, in one line that says what is allowed.
    """
    given = loads(body, "feedback")
    if not isinstance(given, dict):
        raise WireError(f"feedback: a JSON {type(given).__name__}; allowed: {_ALLOWED}")
    response_id = text(given.get("response_id")) or text(given.get("id"))
    if not response_id or len(response_id) > _LONGEST_ID:
        raise WireError(f"feedback: response_id is missing or over {_LONGEST_ID} characters; allowed: {_ALLOWED}")
    match given.get("kind", _said(given.get("score"))):
        case "thumbs_up" | "thumbs_down" as kind:
            return Feedback(kind, response_id, time, tap)
    raise WireError(f"feedback: neither a kind nor a score that says up or down; allowed: {_ALLOWED}")


def _said(score: object) -> str:
    if not isinstance(score, (int, float)) or isinstance(score, bool) or score == 0.5:
        return ""
    if 0.5 < score <= 1:
        return "thumbs_up"
    return "thumbs_down" if score == -1 or 0 <= score < 0.5 else ""
