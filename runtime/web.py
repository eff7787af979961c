"""The HTTP server of both daemons: uvicorn on a socket of ours, with the web configuration file in front.

TLS, client certificates, users, headers and limits follow Prometheus' exporter-toolkit
(``web/tls_config.go``, ``web/handler.go``): every path is protected, and the file and its certificates are
read again when they change. Turning TLS on or off needs a restart, as there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import uvicorn

from palegreen.runtime.webconfig import WebConfig, load_web_config
from palegreen.runtime.webgate import AsgiApp, Gate
from palegreen.runtime.webprotocol import Limits, Protocol
from palegreen.runtime.yamlfile import ConfigError

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 0.7
_HANDSHAKE_SECONDS = 10.0
_BACKLOG = 128


class ListenError(OSError):
    """An address that cannot be listened on; its text is one line with the address and the reason."""


def parse_address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (all addresses).

    Raises:
        ListenError: anything else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not colon or not 0 <= number <= 65535 or (":" in host and not bracketed):
        raise ListenError(f"{text!r} is not an address; allowed: HOST:PORT, [IPV6]:PORT or :PORT, PORT 0 to 65535")
    return host.strip("[]"), number


class WebConfigSource:
    """The web configuration in force: ``path`` as it is now, or as it was when it last could be used.

    ``last_reload_successful`` is False while the file on disk is not the one in force.

    Raises:
        palegreen.runtime.yamlfile.ConfigError: on construction, when the file cannot be used.
    """

    def __init__(
        self, path: Path | None, *, interval: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.last_reload_successful = True
        self._path = path
        self._interval = interval
        self._clock = clock
        self._config = load_web_config(path) if path else WebConfig()
        self._refusal = ""
        self._next_look = clock() + interval

    def current(self) -> WebConfig:
        """The configuration for the connection or request at hand; looks at the files once an interval."""
        now = self._clock()
        if self._path is not None and now >= self._next_look:
            self._next_look = now + self._interval
            if self._config.changed() or not self.last_reload_successful:
                self._reload(self._path)
        return self._config

    def _reload(self, path: Path) -> None:
        try:
            fresh = load_web_config(path)
            if (fresh.tls is None) != (self._config.tls is None):
                turned = "off" if fresh.tls is None else "on"
                raise ConfigError(f"{path}: tls_server_config: turning TLS {turned} needs a restart")
        except ConfigError as error:
            # Tried again at each look, since what is wrong may be a file that was not watched so far.
            self.last_reload_successful = False
            if self._refusal != str(error):
                self._refusal = str(error)
                _log.error("web configuration not reloaded, the previous one stays in force: %s", error)
            return
        if fresh.stamps != self._config.stamps:
            _log.info("web configuration reloaded from %s", path)
        self._config, self._refusal, self.last_reload_successful = fresh, "", True


class WebServer:
    """Serves one ASGI app; listening begins on construction, answering with ``serve``.

    Args:
        app: a plain ASGI callable. It sees only requests that passed the web configuration.
        host: name or address, IPv6 with or without brackets; empty for all.
        port: 0 picks a free one, see ``port``.
        web_config: exporter-toolkit web configuration file.
        limits: sizes and times of one connection.
        reload_interval: the shortest time between two looks at the configuration's files.

    Raises:
        ListenError: the address is bad, taken or not permitted.
        palegreen.runtime.yamlfile.ConfigError: the web configuration is refused.
    """

    def __init__(
        self,
        app: AsgiApp,
        host: str,
        port: int,
        web_config: Path | None = None,
        *,
        limits: Limits | None = None,
        reload_interval: float = 1.0,
    ) -> None:
        limits = limits or Limits()
        self._source = WebConfigSource(web_config, interval=reload_interval)
        self.tls = self._source.current().tls is not None
        self._socket = listen(host.strip("[]"), port)
        self.host: str = host
        self.port: int = self._socket.getsockname()[1]
        self._gate = Gate(app, self._source.current, limits.max_body)
        config = uvicorn.Config(
            self._gate,
            http=Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.keep_alive,
            h11_max_incomplete_event_size=limits.max_head,
        )
        self._server = _Server(config, _CurrentContext.of(self._source) if self.tls else None, limits)

    @property
    def last_reload_successful(self) -> bool:
        """Whether the web configuration on disk is the one in force; True without a file."""
        return self._source.last_reload_successful

    @property
    def started(self) -> bool:
        """Whether requests are being answered."""
        return self._server.started

    async def serve(self) -> None:
        """Answer requests until ``stop``; then finish those under way for a moment and return."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self.close()

    def stop(self) -> None:
        """Ask ``serve`` to return. Safe from a signal handler, from another thread, and before ``serve``."""
        self._server.end()

    def close(self) -> None:
        """Give the address back; only needed where ``serve`` was never called."""
        self._socket.close()
        self._gate.close()


class _CurrentContext(ssl.SSLContext):
    """Hands each new connection to the context in force, so that everything in it can change, not only the
    certificate (which is all that an SNI callback could swap)."""

    _source: WebConfigSource

    @classmethod
    def of(cls, source: WebConfigSource) -> _CurrentContext:
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._source = source
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        context = self._source.current().tls
        if context is None:  # a reload never turns TLS off
            raise ssl.SSLError("no TLS configuration")
        return context.wrap_bio(*args, **kwargs)


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with a shutdown that no client can hold up."""

    def __init__(self, config: uvicorn.Config, context: ssl.SSLContext | None, limits: Limits) -> None:
        super().__init__(config)
        self._context = context
        self._limits = limits
        self._ending: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def end(self) -> None:
        """Leave the main loop; safe from any thread and before it has begun."""
        self.should_exit = True
        if self._ending is not None:
            loop, event = self._ending
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                loop.call_soon_threadsafe(event.set)

    async def main_loop(self) -> None:
        """As uvicorn's, which wakes ten times a second to look whether it should end; here that is an event."""
        event = asyncio.Event()
        self._ending = asyncio.get_running_loop(), event
        while not await self.on_tick(0):  # 0: the tick that renews the Date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        protocol = functools.partial(
            Protocol, config=self.config, server_state=self.server_state, app_state={}, limits=self._limits
        )
        handshake = _HANDSHAKE_SECONDS if self._context else None
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol, sock=sock, ssl=self._context, ssl_handshake_timeout=handshake, backlog=_BACKLOG
            )
            for sock in sockets or ()
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # servers close them
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        deadline = time.monotonic() + _GRACE_SECONDS
        while (state.connections or state.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        # Before the tasks: an app that waits for its client then ends by itself.
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.2)
        self.started = False


def listen(host: str, port: int, *, backlog: int = _BACKLOG) -> socket.socket:
    """A listening socket; an empty host means all addresses. Raises ListenError."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise ListenError(f"cannot listen on {where}: bad port; allowed: 0 to 65535")
    any_address = not host
    try:
        found = socket.getaddrinfo(
            host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0"),  # noqa: S104  # empty host means all
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ListenError(f"cannot listen on {where}: {reason}") from None
    family, _, _, _, address = found[0]
    # Named as TCP, since asyncio turns Nagle's algorithm off for no other: a body would wait for the acknowledgement
    # of its head, which a client may delay by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and (any_address or host == "::"):
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        # Listening now, since two that only bind with SO_REUSEADDR do not collide.
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {where}: {error.strerror or error}") from None
    return listener
