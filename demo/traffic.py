"""Bounded chat traffic against any OpenAI-compatible server, with exact sums of what the answers say."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

_LARGEST_ANSWER = 8 << 20
_PAUSE_AFTER_FAILURE = 0.5
_Usage = tuple[int, int, int]  # prompt, of which cached, completion
Prompt = str | Mapping[str, Any]
"""What a user says, or fields of a request: its messages, and what is to differ from the other requests."""

PROMPTS = (
    "What is the capital of France?",
    "Name three primary colours.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "How many days are in a leap year?",
    "What does a thermometer measure?",
    "Give me a synonym for happy.",
    "Who wrote Romeo and Juliet?",
    "Explain gravity to a child.",
    "What is the largest planet in the solar system?",
    "List two uses of copper.",
    "Translate 'good morning' into Spanish.",
    "What is the boiling point of water in Celsius?",
    "Describe a sunset in ten words.",
    "Which animal is known as the king of the jungle?",
    "What is seven times eight?",
    "Suggest a name for a small grey cat.",
    "What do bees make?",
    "How do I boil an egg?",
    "What is the opposite of ancient?",
    "Tell me a fact about the Moon.",
    "What language is spoken in Brazil?",
    "Write a short greeting for a birthday card.",
    "What is a haiku?",
    "Name a fruit that is yellow.",
    "How does a bicycle stay upright?",
    "What is photosynthesis?",
    "Give one tip for sleeping well.",
    "What is the currency of Japan?",
    "Why do leaves fall in autumn?",
    "Name two oceans.",
    "What is the difference between a lake and a river?",
    "How many sides does a hexagon have?",
    "What should I pack for a day at the beach?",
    "Who was Marie Curie?",
    "Complete the sentence: the early bird catches the ...",
)


@dataclass(frozen=True, slots=True)
class Totals:
    """What has happened so far; `sent - ok - failed` requests are under way or were abandoned."""

    sent: int = 0
    ok: int = 0
    failed: int = 0
    without_usage: int = 0
    """Good answers that did not say how many tokens they cost: the sums below lack them."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """The part of the prompt tokens that the engine had in its prefix cache, where it says so."""
    completion_tokens: int = 0
    last_error: str = ""


class Traffic:
    """Ask short questions until stopped: `with Traffic(url, max_requests=20) as t: t.wait(); t.totals()`."""

    def __init__(
        self,
        url: str,
        *,
        concurrency: int = 1,
        requests_per_second: float | None = None,
        max_requests: int | None = None,
        stream_share: float = 0.5,
        max_tokens: int = 48,
        prompts: Sequence[Prompt] = PROMPTS,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> None:
        """Prepare traffic at `url` (with or without a trailing /v1); nothing is sent before `start`.

        The rate is that of all workers together, and requests that a slow server made us miss are not made
        up. None means as fast as the server answers, and no limit on the number.
        """
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url!r}")
        if concurrency < 1 or not prompts or not 0 <= stream_share <= 1:
            raise ValueError("traffic needs at least one worker, a prompt, and a stream share from 0 to 1")
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/").removesuffix("/v1") + "/v1"
        self._interval = 1 / requests_per_second if requests_per_second else 0.0
        self._max_requests = max_requests
        self._stream_share = stream_share
        self._max_tokens = max_tokens
        self._prompts = prompts
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._timeout = timeout

        self._lock = threading.Lock()
        self._totals = Totals()
        self._next_at = 0.0
        self._model: str | None = None
        self._turns = 0
        self._sockets: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._workers = [
            threading.Thread(target=self._work, name=f"traffic-{number}", daemon=True) for number in range(concurrency)
        ]

    def start(self) -> Self:
        """Start the workers, once."""
        for worker in self._workers:
            worker.start()
        return self

    def stop(self) -> None:
        """Stop within a second; a request under way is abandoned and not counted as failed."""
        with self._lock:
            self._stopping.set()
            sockets = list(self._sockets)
        for connection in sockets:
            with contextlib.suppress(OSError):  # just closed by its own thread
                connection.shutdown(socket.SHUT_RDWR)
        self.wait(0.8)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until `max_requests` are done (or `stop` was called); False if the time ran out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            if worker.ident is not None:
                worker.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not self.running

    @property
    def running(self) -> bool:
        """Whether any worker is alive."""
        return any(worker.is_alive() for worker in self._workers)

    def totals(self) -> Totals:
        """A consistent copy of the counts; final once `stop` has returned."""
        with self._lock:
            return self._totals

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _work(self) -> None:
        while not self._stopping.is_set():
            counted = False
            try:
                model = self._discover_model()
                number = self._take_turn()
                if number is None:
                    return
                counted = True
                self._record_answer(self._ask(model, number))
            except Exception as error:  # noqa: BLE001  a worker outlives whatever a server may answer
                self._record_failure(f"{type(error).__name__}: {error}", counted)
                self._stopping.wait(_PAUSE_AFTER_FAILURE)

    def _take_turn(self) -> int | None:
        """Wait for the next turn at the rate asked for and count it as sent; None when there is none left."""
        with self._lock:
            if self._max_requests is not None and self._turns >= self._max_requests:
                return None
            number = self._turns
            self._turns += 1
            now = time.monotonic()
            self._next_at = max(now, self._next_at + self._interval)
            wait = self._next_at - now
        if self._stopping.wait(wait):
            return None
        with self._lock:
            self._totals = replace(self._totals, sent=self._totals.sent + 1)
        return number

    def _discover_model(self) -> str:
        if self._model is None:
            with _Exchange(self, "GET", "/models") as response:
                self._model = str(_json(response.read(_LARGEST_ANSWER))["data"][0]["id"])
        return self._model

    def _ask(self, model: str, number: int) -> _Usage | None:
        """One chat completion: the tokens it cost, None if the answer does not say."""
        prompt = self._prompts[number % len(self._prompts)]
        asked = {"messages": [{"role": "user", "content": prompt}]} if isinstance(prompt, str) else prompt
        body: dict[str, Any] = {"model": model, "max_tokens": self._max_tokens, **asked}
        # Spreads the streamed ones evenly and the same way each time.
        if int((number + 1) * self._stream_share) > int(number * self._stream_share):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            with _Exchange(self, "POST", "/chat/completions", body) as response:
                return _usage(_last_chunk(response))
        with _Exchange(self, "POST", "/chat/completions", body) as response:
            answer = _json(response.read(_LARGEST_ANSWER))
            if not answer.get("choices"):
                raise ValueError("the answer has no choices")
            return _usage(answer)

    def _record_answer(self, usage: _Usage | None) -> None:
        with self._lock:
            was = self._totals
            if self._stopping.is_set():
                return
            prompt, cached, completion = usage or (0, 0, 0)
            self._totals = replace(
                was,
                ok=was.ok + 1,
                without_usage=was.without_usage + (usage is None),
                prompt_tokens=was.prompt_tokens + prompt,
                cached_tokens=was.cached_tokens + cached,
                completion_tokens=was.completion_tokens + completion,
            )

    def _record_failure(self, error: str, counted: bool) -> None:
        with self._lock:
            if not self._stopping.is_set():
                self._totals = replace(self._totals, failed=self._totals.failed + counted, last_error=error)


class _Exchange:
    """One request on one connection, which `Traffic.stop` may hang up from another thread."""

    def __init__(self, traffic: Traffic, method: str, path: str, body: object = None) -> None:
        self._traffic, self._method, self._path = traffic, method, path
        self._body = None if body is None else json.dumps(body).encode()
        kind = http.client.HTTPSConnection if traffic._https else http.client.HTTPConnection
        self._connection = kind(traffic._host, traffic._port, timeout=traffic._timeout)
        self._socket: socket.socket | None = None

    def __enter__(self) -> http.client.HTTPResponse:
        traffic, connection = self._traffic, self._connection
        try:
            connection.connect()
            with traffic._lock:
                if traffic._stopping.is_set():
                    raise ConnectionAbortedError("stopped")
                # The connection itself forgets its socket once the server has said that it will close it.
                self._socket = connection.sock
                traffic._sockets.add(self._socket)
            connection.request(self._method, traffic._path + self._path, self._body, traffic._headers)
            response = connection.getresponse()
            if response.status != 200:
                detail = " ".join(response.read(300).decode(errors="replace").split())
                raise ValueError(f"HTTP {response.status} from {traffic._path}{self._path}: {detail}")
        except BaseException:
            self._close()
            raise
        return response

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._socket is not None:
            with self._traffic._lock:
                self._traffic._sockets.discard(self._socket)
        self._connection.close()


def _json(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("the answer is not a JSON object")
    return value


def _last_chunk(response: http.client.HTTPResponse) -> dict[str, Any]:
    """Read a stream to its end and return the chunk that carries the usage, {} if none does."""
    found: dict[str, Any] = {}
    while line := response.readline(_LARGEST_ANSWER):
        field, _, data = line.strip().partition(b":")
        if data.strip() == b"[DONE]":
            return found
        if field in (b"data", b"error"):
            chunk = _json(data)
            if field == b"error" or chunk.get("error"):
                raise ValueError(f"error in the stream: {data.decode(errors='replace')[:300]}")
            found = chunk if chunk.get("usage") else found
    raise ValueError("the stream ended without [DONE]")


def _usage(answer: dict[str, Any]) -> _Usage | None:
    usage = answer.get("usage")
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return int(usage["prompt_tokens"]), int(cached), int(usage["completion_tokens"])
