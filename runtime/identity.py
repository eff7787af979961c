"""Which replica a series is about: derived the same way by both daemons, so that their series join."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit


def instance_id(url: str, namespace: str = "", pod: str = "") -> str:
    """`namespace/pod`, else `hostname:serving-port`; a loopback address stands for this host."""
    if pod:
        return f"{namespace}/{pod}"
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1", "0.0.0.0", "::") or host.startswith("127."):  # noqa: S104 - compared, not bound
        host = socket.gethostname()
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
