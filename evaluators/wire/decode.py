"""Envelopes to observations, by kind."""

from __future__ import annotations

from collections.abc import Callable

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation
from palegreen.evaluators.wire import http, jsonl
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError

DECODERS: dict[str, Callable[[Envelope, Defaults], list[Observation]]] = {
    "http": http.decode,
    "jsonl": jsonl.decode,
}


def decode(envelope: Envelope, defaults: Defaults) -> list[Observation]:
    """What an envelope holds; nothing, where it holds nothing to evaluate.

    Raises:
        WireError: one line; the record is lost and is to be counted as undecodable.
    """
    kind = envelope.meta.get("kind")
    decoder = DECODERS.get(str(kind))
    if decoder is None:
        raise WireError(f"kind {str(kind)[:20]!r}; allowed: {', '.join(DECODERS)}")
    return decoder(envelope, defaults)
