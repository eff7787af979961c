"""Real clients through the proxy, and a real engine behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, Self

import httpx
import openai
import pytest
from support.proxying import Connection, Running, Upstream, chunked, ok, proxied
from support.waiting import until

from palegreen.demo import engine
from palegreen.demo.engine import LlamaServer

WORDS = ["Hell", "o ", "w\u00f6", "rld"]
WHOLE = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}],
}  # fmt: skip


def event(word: str) -> bytes:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
    return f"data: {json.dumps(chunk | {'choices': choices}, ensure_ascii=False)}\n\n".encode()


def api(connection: Connection) -> None:
    """A small chat API: keeps connections, streams if asked to."""
    while True:
        head = connection.head().lower()
        size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        request = json.loads(connection.exactly(size))
        if request.get("stream"):
            response = chunked(*map(event, WORDS), b"data: [DONE]\n\n")
            for at in range(0, len(response), 7):  # cut anywhere, also in the middle of a character
                connection.send(response[at : at + 7])
        else:
            connection.send(ok(json.dumps(WHOLE).encode()))


@pytest.fixture
def through() -> Iterator[tuple[Upstream, Running]]:
    with Upstream(api) as upstream, proxied(upstream.url) as proxy:
        yield upstream, proxy


def asked(stream: bool = False) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}


def test_http_client(through: tuple[Upstream, Running]) -> None:
    _, proxy = through
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    for stream in (False, True, False):
        connection.request("POST", "/v1/chat/completions", json.dumps(asked(stream)))
        body = connection.getresponse().read()
        assert (b"".join(map(event, WORDS)) in body) if stream else json.loads(body) == WHOLE
    connection.close()
    assert len(until(lambda: len(proxy.envelopes) == 3 and proxy.envelopes)) == 3


def test_httpx(through: tuple[Upstream, Running]) -> None:
    upstream, proxy = through
    with httpx.Client(base_url=proxy.url) as client:
        assert client.post("/v1/chat/completions", json=asked()).json() == WHOLE
        with client.stream("POST", "/v1/chat/completions", json=asked(stream=True)) as response:
            lines = [line for line in response.iter_lines() if line]
    assert len(lines) == len(WORDS) + 1
    assert len(upstream.connections) == 1


def test_the_openai_client_streamed_and_not(through: tuple[Upstream, Running]) -> None:
    _, proxy = through
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none") as client:
        whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
        assert whole.choices[0].message.content == "".join(WORDS)
        chunks = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)
        assert [chunk.choices[0].delta.content for chunk in chunks] == WORDS


def test_the_openai_client_understands_that_there_is_no_upstream() -> None:
    with Upstream(api) as gone:
        pass
    with (
        proxied(gone.url) as proxy,
        openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="x", max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="no connection to upstream: Connection refused"),
    ):
        client.models.list()


@pytest.mark.skipif(engine.available() is not None, reason=engine.available() or "")
def test_from_llama_cpp_the_openai_client_gets_the_bytes_that_it_sent() -> None:
    with LlamaServer().start() as llama:
        port = int(llama.url.rpartition(":")[2])
        with Recorder(port) as server_side, proxied(server_side.url) as proxy, Recorder(proxy.port) as client_side:
            with openai.OpenAI(base_url=f"{client_side.url}/v1", api_key="none") as client:
                for stream in (False, True):
                    answer: Any = client.chat.completions.create(
                        model="m",
                        messages=[{"role": "user", "content": "Count to ten."}],
                        max_tokens=24,
                        temperature=0,
                        stream=stream,
                    )
                    text = (
                        "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
                        if stream
                        else answer.choices[0].message.content
                    )
                    assert text
            envelopes = until(lambda: len(proxy.envelopes) == 2 and proxy.envelopes)
            assert client_side.responses == server_side.responses != b""
        for envelope in envelopes:
            assert (envelope.meta["status"], envelope.meta["ended"]) == (200, "complete")
        assert json.loads(envelopes[0].parts[1])["choices"]
        assert envelopes[1].parts[1].rstrip().endswith(b"data: [DONE]")


class Recorder:
    """A relay of bytes in front of a port, which remembers what came back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._upstream = Upstream(self._relay)
        self.url = self._upstream.url
        self.responses = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *trace: object) -> None:
        self._upstream.__exit__(*trace)

    def _relay(self, connection: Connection) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as server:
            back = threading.Thread(target=self._back, args=(connection, server))
            back.start()
            try:
                at = 0
                while True:
                    connection.more()
                    server.sendall(connection.received[at:])
                    at = len(connection.received)
            except EOFError:
                server.shutdown(socket.SHUT_WR)
            back.join(60)

    def _back(self, connection: Connection, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                self.responses += data
                connection.send(data)
