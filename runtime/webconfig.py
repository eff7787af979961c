"""The web configuration file of Prometheus' exporter-toolkit: TLS, client certificates, users, headers.

Source: exporter-toolkit ``docs/web-configuration.md`` and ``web/tls_config.go``. A file written for any
Prometheus exporter is read here with the same meaning; what Python's ``ssl`` cannot honour is refused with a
line that says so, never ignored. Relative paths are relative to the file's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from palegreen.runtime.webtls import TlsContext, TlsSection, tls_context
from palegreen.runtime.yamlfile import Document

_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
# Above 16 one wrong password holds a core for seconds.
_BCRYPT_COSTS = range(4, 17)
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)

Stamp = tuple[int, int, int] | None


def _header(value: str) -> str:
    if any(not " " <= character <= "~" for character in value):
        raise ValueError("the value has characters a header cannot carry; allowed: printable ASCII")
    return value.strip()


def _bcrypt_hash(value: SecretStr) -> SecretStr:
    match = _BCRYPT.fullmatch(value.get_secret_value())
    if match is None:
        raise ValueError('not a bcrypt hash; allowed: the output of `htpasswd -nBC 10 ""`, such as $2y$10$...')
    if int(match[1]) not in _BCRYPT_COSTS:
        raise ValueError(f"bcrypt cost {int(match[1])}; allowed: {_BCRYPT_COSTS[0]} to {_BCRYPT_COSTS[-1]}")
    return value


def _duration(value: object) -> float:
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    parts = _DURATION_PART.findall(value) if isinstance(value, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"got {value!r:.60}; allowed: a duration such as 500ms, 1s or 1m30s, or 0 for no limit")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_HeaderText = Annotated[str, AfterValidator(_header)]


class HeadersSection(_Section):
    """``http_server_config.headers``: the toolkit's closed list."""

    content_security_policy: _HeaderText = Field("", alias="Content-Security-Policy")
    x_frame_options: Literal["", "deny", "sameorigin"] = Field("", alias="X-Frame-Options")
    x_content_type_options: Literal["", "nosniff"] = Field("", alias="X-Content-Type-Options")
    x_xss_protection: _HeaderText = Field("", alias="X-XSS-Protection")
    strict_transport_security: _HeaderText = Field("", alias="Strict-Transport-Security")


class HttpSection(_Section):
    """``http_server_config``; ``http2`` is accepted and HTTP/1.1 served, which every client falls back to."""

    http2: bool = True
    headers: HeadersSection = Field(default_factory=lambda: HeadersSection.model_validate({}))


class RateSection(_Section):
    """``rate_limit``: a token bucket over all requests."""

    interval: Annotated[float, BeforeValidator(_duration)] = 0.0
    burst: Annotated[int, Field(ge=0)] = 0


class WebFile(_Section):
    """The whole file."""

    tls_server_config: TlsSection = TlsSection()
    http_server_config: HttpSection = HttpSection()
    basic_auth_users: dict[str, Annotated[SecretStr, AfterValidator(_bcrypt_hash)]] = {}
    rate_limit: RateSection = RateSection()


@dataclass(frozen=True)
class WebConfig:
    """A web configuration ready to serve with; the default is plain HTTP for everybody."""

    users: Mapping[str, bytes] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rate_interval: float = 0.0
    rate_burst: int = 0
    tls: TlsContext | None = None
    stamps: tuple[tuple[Path, Stamp], ...] = ()

    def changed(self) -> bool:
        """Whether a file that this was read from is not the one that was read."""
        return any(stamp(path) != seen for path, seen in self.stamps)


def stamp(path: Path) -> Stamp:
    """What tells one version of a file from the next, through links; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration file and the certificates that it names.

    Raises:
        palegreen.runtime.yamlfile.ConfigError: one line with the file, the line, the key and what is allowed.
    """
    stamps = [(path, stamp(path))]  # before the read, so that a change meanwhile is seen as one
    document = Document.read(path)
    file = document.validate(WebFile)
    for user in file.basic_auth_users:
        if ":" in user:
            raise document.error(("basic_auth_users", user), "a user name cannot contain a colon")
    if file.rate_limit.interval and not file.rate_limit.burst:
        raise document.error(("rate_limit", "burst"), "burst is 0, which refuses everything; allowed: 1 or more")
    tls = None
    if file.tls_server_config.model_fields_set:
        section = file.tls_server_config
        names = (section.cert_file, section.key_file, section.client_ca_file)
        stamps += [(path.parent / name, stamp(path.parent / name)) for name in names if name]
        tls = tls_context(document, section)
    headers = file.http_server_config.headers.model_dump(by_alias=True)
    return WebConfig(
        users={user: hashed.get_secret_value().encode() for user, hashed in file.basic_auth_users.items()},
        headers=tuple((name.lower().encode(), value.encode()) for name, value in headers.items() if value),
        rate_interval=file.rate_limit.interval,
        rate_burst=file.rate_limit.burst,
        tls=tls,
        stamps=tuple(stamps),
    )
