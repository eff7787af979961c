"""What both daemons answer over HTTP: /metrics, /healthz, /readyz and a status page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from html import escape
from typing import Protocol

from palegreen.runtime.exposition import OPENMETRICS, TEXT, negotiate
from palegreen.runtime.webgate import Receive, Scope, Send

Post = Callable[[bytes], Awaitable[tuple[int, str]]]
"""Takes the body of a POST; its answer is a status and one line."""

_PLAIN = "text/plain; charset=utf-8"
_MOST_POSTED = 4096  # bytes
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "body{color:#1b2a22;background:#f6faf6}"
    "h1{font-size:1.3rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;"
    "border-bottom:1px solid #d5e3d8;vertical-align:top}td:nth-child(n+4){white-space:nowrap}"
    ".up,a{color:#16703a}.down{color:#b3261e}"
)


class Status(Protocol):
    """What a daemon says of itself."""

    def body(self, openmetrics: bool, gzipped: bool) -> bytes:
        """The current exposition."""

    def stuck(self) -> str:
        """Why it should be started again, empty if it should not."""

    def waiting(self) -> str:
        """What it waits for until it is ready, empty if it is."""

    def page(self) -> str:
        """The status page, see `page`."""


class App:
    """The ASGI application of a daemon. `posts` are the paths that are posted to and nothing else."""

    def __init__(self, status: Status, posts: Mapping[str, Post] | None = None) -> None:
        self._status = status
        self._posts = posts or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        post = self._posts.get(scope["path"])
        status, headers, body = await _posted(post, scope, receive) if post is not None else self._answer(scope)
        headers = [(b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, [(b"allow", b"GET, HEAD"), _type(_PLAIN)], b"only GET and HEAD are answered\n"
        match scope["path"]:
            case "/metrics":
                return self._metrics(scope["headers"])
            case "/healthz":
                return _plain(self._status.stuck(), b"ok\n")
            case "/readyz":
                return _plain(self._status.waiting(), b"ready\n")
            case "/":
                return 200, [_type("text/html; charset=utf-8")], self._status.page().encode()
        pages = ", ".join(("/", "/metrics", "/healthz", *self._posts))
        return 404, [_type(_PLAIN)], f"no such page; there are {pages} and /readyz\n".encode()

    def _metrics(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        asked = {name: value.decode("latin-1") for name, value in headers}
        openmetrics, gzipped = negotiate(asked.get(b"accept", ""), asked.get(b"accept-encoding", ""))
        answer = [_type(OPENMETRICS if openmetrics else TEXT), (b"vary", b"Accept, Accept-Encoding")]
        if gzipped:
            answer.append((b"content-encoding", b"gzip"))
        return 200, answer, self._status.body(openmetrics, gzipped)


async def _posted(post: Post, scope: Scope, receive: Receive) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The answer of a path that is posted to. A client that goes in the middle of its body is answered to nobody."""
    if scope["method"] != "POST":
        return 405, [(b"allow", b"POST"), _type(_PLAIN)], b"only POST is answered here\n"
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return 400, [_type(_PLAIN)], b"the body is not whole\n"
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _MOST_POSTED:
            refusal = f"the body is larger than is allowed: {_MOST_POSTED} bytes\n"
            return 413, [(b"connection", b"close"), _type(_PLAIN)], refusal.encode()
    status, line = await post(body)
    return status, [_type(_PLAIN)], f"{line}\n".encode()


def page(title: str, heads: Sequence[str], rows: Sequence[str], empty: str) -> str:
    """A status page: a table of `rows` (each a <tr>), or the text `empty`."""
    head = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(rows) or f"<tr><td colspan={len(heads)}>{escape(empty)}</td></tr>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title.rpartition(' ')[0])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        "<p><a href=/metrics>metrics</a> · <a href=/readyz>ready</a> · <a href=/healthz>alive</a></p>"
        f"<table><tr>{head}</tr>{body}</table></html>"
    )


def _plain(trouble: str, good: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return (503, [_type(_PLAIN)], f"{trouble}\n".encode()) if trouble else (200, [_type(_PLAIN)], good)


def _type(value: str) -> tuple[bytes, bytes]:
    return b"content-type", value.encode()
