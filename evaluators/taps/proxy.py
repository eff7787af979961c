"""The reverse proxy in front of an engine or API: relays HTTP/1.1 untouched, and holds what is sampled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.taps.exchange import Tap
from palegreen.evaluators.taps.relay import Relay, Shared
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.evaluators.taps.upstream import Target
from palegreen.runtime.clienttls import verifying
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import listen, parse_address
from palegreen.runtime.yamlfile import ConfigError

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0
_CERTIFICATE_SECONDS = 10.0  # between two looks at the certificate's files


class Proxy:
    """Listens on `config.proxy_address` for `config.upstream`.

    Args:
        config: `upstream`, `proxy_*`, `upstream_*`, `session_header`, `keep_header`, `body_limit` and `queue_limit`
            (here the most that exchanges under way hold together) are read.
        sampler: which exchanges are held.
        put: takes each of them when it is over; must not block.
        tally: needs the histograms' BUCKETS of `palegreen.evaluators.taps.exchange`.

    Raises:
        palegreen.runtime.yamlfile.ConfigError: no upstream, or a TLS file that cannot be used.
    """

    def __init__(self, config: EvaluateConfig, sampler: Sampler, put: Callable[[Envelope], None], tally: Tally) -> None:
        self._address = parse_address(config.proxy_address)
        self._tls = _server_context(config)
        self._shared = Shared(_target(config), Tap(config, sampler, put, tally))
        self._server: asyncio.Server | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.port = 0

    def passed(self) -> float:
        """When a token last passed to a user, monotonic seconds; 0 for never."""
        return self._shared.tap.passed

    async def start(self) -> None:
        """Listen and relay from now on. Raises palegreen.runtime.web.ListenError, one line."""
        listener = listen(*self._address, backlog=_BACKLOG)
        self.port = listener.getsockname()[1]
        context = self._tls.context if self._tls is not None else None
        handshake = _HANDSHAKE_SECONDS if context is not None else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Relay(self._shared),
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=handshake,
            backlog=_BACKLOG,
        )
        if self._tls is not None:
            self._renewing = loop.create_task(self._tls.renew())

    async def stop(self, grace_seconds: float) -> None:
        """Accept nobody, let responses under way finish for so long, then close."""
        if self._server is not None:
            self._server.close()
        if self._renewing is not None:
            self._renewing.cancel()
        self._shared.draining = True
        for relay in list(self._shared.relays):
            relay.drain()
        until = asyncio.get_running_loop().time() + grace_seconds
        while self._shared.relays and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)
        for relay in list(self._shared.relays):
            relay.abort()
        while self._shared.relays:
            await asyncio.sleep(0)


def _target(config: EvaluateConfig) -> Target:
    if config.upstream is None:
        raise ConfigError("upstream: the proxy needs one; allowed: http(s)://HOST:PORT")
    parts = urlsplit(config.upstream)
    tls = parts.scheme == "https"
    try:
        authority, prefix = parts.netloc.encode("ascii"), parts.path.rstrip("/").encode("ascii")
    except UnicodeEncodeError:
        raise ConfigError(f"upstream: got {config.upstream!r}; allowed: ASCII, names in Punycode") from None
    port = parts.port or (443 if tls else 80)
    return Target(parts.hostname or "", port, authority, prefix, _client_context(config) if tls else None)


def _client_context(config: EvaluateConfig) -> ssl.SSLContext:
    try:
        context = verifying(config.upstream_ca_file, config.upstream_insecure_skip_verify)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"upstream_ca_file: {config.upstream_ca_file} cannot be used: {_why(error)}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class _ServerTls:
    """The certificate that clients see; read again when its files change."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        self._stamps = self._stamp()
        self._load(self.context)

    async def renew(self) -> None:
        """Look at the files now and then, for ever."""
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            with contextlib.suppress(OSError):
                if (stamps := self._stamp()) != self._stamps:
                    self._stamps = stamps
                    try:
                        # First into another: half of a new pair would break the one in force.
                        self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
                        self._load(self.context)
                    except ConfigError as error:
                        _log.error("the proxy's certificate was not renewed, the previous one stays: %s", error)
                    else:
                        _log.info("the proxy's certificate was renewed from %s", self._files[0])

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._files
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except OSError as error:
            raise ConfigError(
                f"proxy_tls_cert_file: {certificate} with key {key} cannot be used: {_why(error)}"
            ) from None

    def _stamp(self) -> list[tuple[int, int]]:
        return [(stat.st_mtime_ns, stat.st_ino) for stat in (file.stat() for file in self._files if file.exists())]


def _server_context(config: EvaluateConfig) -> _ServerTls | None:
    if config.proxy_tls_cert_file is None or config.proxy_tls_key_file is None:
        return None
    return _ServerTls(config.proxy_tls_cert_file, config.proxy_tls_key_file)


def _why(error: OSError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or "not a PEM file"
