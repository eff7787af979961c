"""What the daemon answers over HTTP: /metrics, /healthz, /readyz and a status page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from palegreen.exporter.snapshot import Snapshots
from palegreen.exporter.source import State
from palegreen.runtime.exposition import OPENMETRICS, TEXT, negotiate
from palegreen.runtime.webgate import Receive, Scope, Send

_PLAIN = "text/plain; charset=utf-8"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "body{color:#1b2a22;background:#f6faf6}"
    "h1{font-size:1.3rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;"
    "border-bottom:1px solid #d5e3d8;vertical-align:top}td:nth-child(n+4){white-space:nowrap}"
    ".up,a{color:#16703a}.down{color:#b3261e}"
)


class App:
    """The ASGI application of the node daemon."""

    def __init__(self, snapshots: Snapshots, version: str) -> None:
        self._snapshots = snapshots
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, headers, body = self._answer(scope)
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
                if self._snapshots.stuck:
                    return 503, [_type(_PLAIN)], b"nothing has been rendered for 30 s; see the log\n"
                return 200, [_type(_PLAIN)], b"ok\n"
            case "/readyz":
                waiting = [_named(state) for state in self._snapshots.states if not state.tried]
                if waiting or not self._snapshots.rendered:
                    return (
                        503,
                        [_type(_PLAIN)],
                        f"not read yet: {', '.join(waiting) or 'anything'}\n".encode(),
                    )
                return 200, [_type(_PLAIN)], b"ready\n"
            case "/":
                return 200, [_type("text/html; charset=utf-8")], self._page(self._snapshots.states).encode()
        return 404, [_type(_PLAIN)], b"no such page; there are /, /metrics, /healthz and /readyz\n"

    def _metrics(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        asked = {name: value.decode("latin-1") for name, value in headers}
        openmetrics, gzipped = negotiate(asked.get(b"accept", ""), asked.get(b"accept-encoding", ""))
        answer = [_type(OPENMETRICS if openmetrics else TEXT), (b"vary", b"Accept, Accept-Encoding")]
        if gzipped:
            answer.append((b"content-encoding", b"gzip"))
        return 200, answer, self._snapshots.body(openmetrics, gzipped)

    def _page(self, states: Sequence[State]) -> str:
        rows = "".join(_row(state) for state in states) or "<tr><td colspan=5>no sources are configured</td></tr>"
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>Palegreen node</title><style>{_STYLE}</style>"
            f"<h1>Palegreen node {escape(self._version)}</h1>"
            "<p><a href=/metrics>metrics</a> · <a href=/readyz>ready</a> · <a href=/healthz>alive</a></p>"
            "<table><tr><th>source</th><th>what</th><th>state</th><th>age</th><th>took</th></tr>"
            f"{rows}</table></html>"
        )


def _row(state: State) -> str:
    word = "up" if state.up else "waiting" if not state.tried else "down"
    cause = "" if state.up else f"<br>{escape(state.error)}"
    age = "" if state.age is None else f"{state.age:.1f} s"
    return (
        f"<tr><td>{escape(_named(state))}</td><td>{escape(state.about)}</td>"
        f"<td class={word}>{word}{cause}</td><td>{age}</td><td>{state.duration * 1000:.1f} ms</td></tr>"
    )


def _named(state: State) -> str:
    return f"{state.name} {state.target}".strip()


def _type(value: str) -> tuple[bytes, bytes]:
    return b"content-type", value.encode()
