"""What only shows over several samples of one session: questions asked again, tools called again, turns.

No text is kept: of a session there are hashes, vectors of one byte a dimension, and counts.
"""

from __future__ import annotations

import re
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from sys import intern
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from palegreen.evaluators.sample import Message, Sample, ToolCall
from palegreen.evaluators.toolerrors import reports_error

# A character of a script without spaces between words counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")

_LEAST_WORDS = 3  # "continue" or "yes please" may be said any number of times
_LEAST_COSINE = 0.95
_LEAST_OVERLAP = 0.8  # of sets of words, Jaccard
_SKETCH = 64  # words of a question that are compared: all of a short one
_LONGEST = 1000  # characters; embedders cut longer texts, so their vectors say nothing of the rest
_QUESTIONS = 5  # kept of a session
_CALLS = 64
_REQUESTS = 4
_RETRY_SECONDS = 1.0  # after a response, the same request again is its client's doing
_RETRY_AFTER_FAILURE_SECONDS = 60.0


class Signals(NamedTuple):
    """What a sample says in the light of its session; without a session there is nothing.

    `turns` are those of the session so far. `repeated_question`: the user asked nearly the same before.
    `repeated_tool_calls` and `tool_errors` count what is new with this sample.
    """

    turns: int = 0
    repeated_question: bool = False
    repeated_tool_calls: int = 0
    tool_errors: int = 0


class Ended(NamedTuple):
    """A session that ended: nothing came for the time to live, or (`evicted`) it made room for others."""

    model: str
    endpoint: str
    turns: int
    evicted: bool


class _Question(NamedTuple):
    """A question as it is compared and kept.

    `words` are the smallest hashes of its distinct words, a bottom-k sketch, whose overlap estimates that of the words
    (Broder, "On the resemblance and containment of documents", 1997). `numbers` is a hash of the words with digits:
    questions that differ in them are different questions. `vector` is empty if there is none.
    """

    words: array[int]
    numbers: int
    vector: bytes = b""

    @classmethod
    def of(cls, text: str, vector: NDArray[np.float32] | None = None) -> _Question:
        words = frozenset(_WORD.findall(text.casefold()))
        numbers = hash(frozenset(word for word in words if any(map(str.isdigit, word))))
        sketch = array("I", nsmallest(_SKETCH, (hash(word) & 0xFFFFFFFF for word in words)))
        return cls(sketch, numbers, _small(vector) if vector is not None and len(text) <= _LONGEST else b"")

    def is_like(self, other: _Question) -> bool:
        if self.numbers != other.numbers:
            return False
        if self.vector and len(self.vector) == len(other.vector):
            return _cosine(self.vector, other.vector) >= _LEAST_COSINE
        mine, others = set(self.words), set(other.words)
        sketch = nsmallest(_SKETCH, mine | others)
        return sum(word in mine and word in others for word in sketch) >= _LEAST_OVERLAP * len(sketch)


class _Request(NamedTuple):
    """A request: the same again between these times is a retry."""

    digest: int
    since: float
    until: float


@dataclass(slots=True)
class _Session:
    model: str
    endpoint: str
    seen: float = 0.0
    turns: int = 0
    asked: deque[_Question] = field(default_factory=lambda: deque(maxlen=_QUESTIONS))
    calls: array[int] = field(default_factory=lambda: array("q"))
    requests: tuple[_Request, ...] = ()


class Sessions:
    """State over the samples of each session, bounded in sessions, time and size; one thread.

    Args:
        limit: most sessions; the one that was silent longest makes room.
        ttl: seconds without a sample after which a session has ended.
        clock: seconds that never jump; only their differences count.
    """

    def __init__(self, limit: int = 10_000, ttl: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._ttl = ttl
        self._clock = clock
        self._sessions: OrderedDict[int, _Session] = OrderedDict()  # the one that was silent longest first
        self._ended: deque[Ended] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._sessions)

    def observe(self, sample: Sample, prompt_vector: NDArray[np.float32] | None = None) -> Signals:
        """Add a sample, redacted, with the unit vector of its prompt if there is an embedder."""
        now = self._clock()
        self._expire(now)
        if not sample.session:
            return Signals()
        session = self._session(sample, now)
        if sample.choice:
            return Signals(session.turns)
        repeated_calls = _repeated_calls(session, sample)
        if self._is_retry(session, sample, now):  # its calls are known from here on, and that is all
            return Signals(session.turns)
        users = [message["content"] for message in sample.messages if message["role"] == "user"]
        latest = _since_answer(sample.messages)
        asks = any(message["role"] == "user" for message in latest)
        repeated = asks and _is_asked_again(session, users, prompt_vector)
        session.turns = max(session.turns + asks, len(users))
        return Signals(
            session.turns,
            repeated,
            repeated_calls,
            sum(message["role"] == "tool" and reports_error(message["content"]) for message in latest),
        )

    def ended(self) -> Iterator[Ended]:
        """Sessions that ended since the last call, each once. Beyond `limit` of them the oldest are not told."""
        self._expire(self._clock())
        while self._ended:
            yield self._ended.popleft()

    def _session(self, sample: Sample, now: float) -> _Session:
        key = hash(sample.session)
        session = self._sessions.get(key)
        if session is None:
            if len(self._sessions) >= self._limit:
                self._end(evicted=True)
            session = self._sessions[key] = _Session(intern(sample.model), intern(sample.endpoint))
        else:
            self._sessions.move_to_end(key)
        session.seen = now
        return session

    def _expire(self, now: float) -> None:
        while self._sessions and now - next(iter(self._sessions.values())).seen > self._ttl:
            self._end(evicted=False)

    def _end(self, evicted: bool) -> None:
        _, session = self._sessions.popitem(last=False)
        self._ended.append(Ended(session.model, session.endpoint, session.turns, evicted))

    @staticmethod
    def _is_retry(session: _Session, sample: Sample, now: float) -> bool:
        """Whether the same request came before so shortly, or failed, that nobody asked again."""
        begun = sample.time or now
        digest = hash(tuple(map(_digest, sample.messages)))
        retry = any(last.digest == digest and last.since <= begun <= last.until for last in session.requests)
        failed = sample.ended != "complete" or bool(sample.error) or (sample.status or 200) >= 400
        patience = _RETRY_AFTER_FAILURE_SECONDS if failed else _RETRY_SECONDS
        # Times are the wall clock's, since batches are observed later than they came; a jump spoils a minute at most.
        request = _Request(
            digest, begun - _RETRY_AFTER_FAILURE_SECONDS, begun + (sample.duration_seconds or 0.0) + patience
        )
        session.requests = (*session.requests, request)[-_REQUESTS:]
        return retry and bool(sample.messages)


def _digest(message: Message) -> int:
    calls = tuple((call["name"], call["arguments"]) for call in message.get("tool_calls", ()))
    return hash((message["role"], message["content"], calls))


def _since_answer(messages: list[Message]) -> list[Message]:
    """The messages that are new with the request: those after the latest answer of the model."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at]["role"] == "assistant":
            return messages[at + 1 :]
    return messages


def _is_asked_again(session: _Session, users: list[str], vector: NDArray[np.float32] | None) -> bool:
    """Whether the last of `users` was asked before: in the request's own history or in earlier requests."""
    question = _Question.of(users[-1], vector)
    if len(question.words) < _LEAST_WORDS:
        return False
    again = any(map(question.is_like, session.asked))
    # Of what the request resends, some may never have been sampled; there are no vectors of it.
    again = again or any(question.is_like(_Question.of(text)) for text in users[-1 - _QUESTIONS : -1])
    session.asked.append(question)
    return again


def _small(vector: NDArray[np.float32]) -> bytes:
    """A vector at one byte a dimension; its length is lost, its direction is not."""
    largest = float(np.abs(vector).max(initial=0.0))
    return (vector * (127 / largest)).round().astype(np.int8).tobytes() if largest > 0 else b""


def _cosine(one: bytes, other: bytes) -> float:
    a, b = (np.frombuffer(vector, np.int8).astype(np.float32) for vector in (one, other))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _repeated_calls(session: _Session, sample: Sample) -> int:
    """How many of the sample's own calls were made before, in the session or in what the request resends."""
    if not sample.tool_calls:
        return 0
    names = {call["name"] for call in sample.tool_calls}
    resent = (call for message in sample.messages for call in message.get("tool_calls", ()))
    before = {_call(call) for call in resent if call["name"] in names} | set(session.calls)
    repeated = 0
    for call in map(_call, sample.tool_calls):
        repeated += call in before
        if call not in before:
            session.calls.append(call)
        before.add(call)
    del session.calls[:-_CALLS]
    return repeated


def _call(call: ToolCall) -> int:
    """Hash of a call: the same for arguments that differ in layout or in the order of keys alone."""
    arguments: Any = call["arguments"]
    try:
        arguments = orjson.dumps(orjson.loads(arguments), option=orjson.OPT_SORT_KEYS)
    except ValueError:  # not JSON, or nested too deeply to be written again
        arguments = " ".join(arguments.split())
    return hash((call["name"], arguments))
