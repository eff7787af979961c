"""CloudEvents decoded: the two events of a call are joined, however they come, and nothing waits for ever."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from support import senders

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation, Sample
from palegreen.evaluators.wire.cloudevents import REQUEST, RESPONSE, CloudEvents
from palegreen.evaluators.wire.errors import WireError

REQUEST_BODY, RESPONSE_BODY = senders.bodies(senders.exchanges()["plain"])


def event(kind: str, body: bytes, call: str = "1", **attributes: str) -> Envelope:
    headers = {"ce-id": call, "ce-type": kind} | {f"ce-{name}": value for name, value in attributes.items()}
    meta = {"tap": "kserve", "kind": "cloudevent", "time": 5.0, "content_type": "application/json", "headers": headers}
    return Envelope(meta, [body])


def structured(*events: dict[str, Any]) -> Envelope:
    batch = len(events) > 1
    kind = "application/cloudevents-batch+json" if batch else "application/cloudevents+json; charset=utf-8"
    body = json.dumps(list(events) if batch else events[0]).encode()
    return Envelope({"tap": "kserve", "kind": "cloudevent", "time": 5.0, "content_type": kind}, [body])


ASKED, ANSWERED = event(REQUEST, REQUEST_BODY), event(RESPONSE, RESPONSE_BODY)


class Decoding:
    """A decoder whose clock is set by hand."""

    def __init__(self, **limits: Any) -> None:
        self.now = 0.0
        self.decoder = CloudEvents(senders.decode_http, clock=lambda: self.now, **limits)

    def give(self, *envelopes: Envelope) -> list[Sample]:
        return self._samples([one for envelope in envelopes for one in self.decoder.decode(envelope)])

    def due(self, now: float) -> list[Sample]:
        self.now = now
        return self._samples(self.decoder.due())

    def _samples(self, found: list[Observation]) -> list[Sample]:
        return [one for one in found if isinstance(one, Sample)]


@pytest.mark.parametrize("order", [(ASKED, ANSWERED), (ANSWERED, ASKED)])
def test_a_request_and_its_response_are_one_sample_in_either_order(order: tuple[Envelope, Envelope]) -> None:
    decoding = Decoding()
    assert decoding.give(order[0]) == []
    [found] = decoding.give(order[1])
    assert found.response.startswith("Paris.")
    assert found.prompt.startswith("What is the capital")
    assert decoding.due(1000) == []


def test_a_response_whose_request_does_not_come_is_scored_alone() -> None:
    decoding = Decoding()
    decoding.give(ANSWERED)
    assert decoding.due(9.9) == []
    [found] = decoding.due(10)
    assert found.response.startswith("Paris.")
    assert found.messages == []


def test_a_request_without_a_response_is_dropped_after_ten_minutes_and_counted() -> None:
    decoding = Decoding()
    decoding.give(ASKED)
    assert decoding.due(599) == []
    assert decoding.decoder.unanswered == 0
    assert decoding.due(600) == []
    assert decoding.decoder.unanswered == 1


def test_what_waits_is_bounded_by_number_and_by_bytes() -> None:
    for limits in ({"most": 10}, {"most_bytes": 10 * (len(REQUEST_BODY) + 1024)}):
        decoding = Decoding(**limits)
        for number in range(15):
            decoding.give(event(REQUEST, REQUEST_BODY, str(number)))
        assert decoding.decoder.unanswered == 5
        assert len(decoding.give(event(RESPONSE, RESPONSE_BODY, "14"))) == 1


def test_an_event_that_is_sent_again_counts_once() -> None:
    decoding = Decoding()
    assert len(decoding.give(ASKED, ASKED, ANSWERED)) == 1
    assert decoding.decoder.unanswered == 0


def test_structured_and_batched_events_are_read_too() -> None:
    asked = {"id": "1", "type": REQUEST, "inferenceservicename": "a", "data": json.loads(REQUEST_BODY)}
    answered = {"id": "1", "type": RESPONSE, "inferenceservicename": "a"}
    packed = answered | {"data_base64": base64.b64encode(RESPONSE_BODY).decode()}
    as_text = answered | {"data": RESPONSE_BODY.decode()}
    for events in ((structured(asked), structured(packed)), (structured(asked, as_text),)):
        [found] = Decoding().give(*events)
        assert (found.response[:6], found.prompt[:4], found.endpoint) == ("Paris.", "What", "a")


def test_a_response_that_the_engine_compressed_is_read_too() -> None:
    [found] = Decoding().give(ASKED, event(RESPONSE, gzip.compress(RESPONSE_BODY)))
    assert found.response.startswith("Paris.")


def test_the_duration_is_known_only_where_the_agent_says_when_it_saw_both() -> None:
    times = {"recordedtime": "2026-11-21T10:00:00.5Z", "time": "2026-11-21T10:00:09Z"}
    later = times | {"recordedtime": "2026-11-21T10:00:02Z"}
    [found] = Decoding().give(event(REQUEST, REQUEST_BODY, **times), event(RESPONSE, RESPONSE_BODY, **later))
    assert (found.time, found.duration_seconds) == (1795255200.5, 1.5)
    sent = {"time": "2026-11-21T10:00:09Z"}
    [found] = Decoding().give(event(REQUEST, REQUEST_BODY, **sent), event(RESPONSE, RESPONSE_BODY, **later))
    assert (found.time, found.duration_seconds) == (1795255209.0, None)


def test_a_trace_of_the_requests_logged_headers_is_kept() -> None:
    logged = json.dumps({"Traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]})
    [found] = Decoding().give(event(REQUEST, REQUEST_BODY, metadata=logged), ANSWERED)
    assert found.trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("envelope", "line"),
    [
        (event("org.example.other", b"{}"), "CloudEvent of type 'org.example.other'"),
        (event(REQUEST, b"{}", call=""), "with an id"),
        (structured({"id": "1", "type": REQUEST, "data_base64": "?"}), "data_base64 is not base64"),
        (Envelope({"content_type": "application/cloudevents+json"}, [b"{"]), "CloudEvent: not JSON"),
    ],
)
def test_what_is_no_event_of_an_inference_is_refused_in_one_line(envelope: Envelope, line: str) -> None:
    with pytest.raises(WireError, match=line):
        Decoding().give(envelope)


def test_tensors_are_no_text_and_are_refused_when_the_call_is_whole() -> None:
    decoding = Decoding()
    decoding.give(event(REQUEST, b'{"instances": [[1.0]]}'))
    with pytest.raises(WireError, match="no chat, completion or response"):
        decoding.give(event(RESPONSE, b'{"predictions": [1]}'))
