"""TLS for the web server: the ``tls_server_config`` section and the ``ssl`` context made from it.

Source: Prometheus' exporter-toolkit, ``docs/web-configuration.md`` and ``web/tls_config.go``. What Python's
``ssl`` cannot honour is refused with a line that says so, never ignored. TLS below 1.2 is refused.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

from palegreen.runtime.yamlfile import Document

_TLS = "tls_server_config"
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
# Go's secure suites (crypto/tls CipherSuites) by their OpenSSL names. Those of TLS 1.3 are always on.
_TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_TLS12_SUITES = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}


def _version(value: str) -> str:
    if value in _VERSIONS:
        return value
    why = "is older than TLS 1.2 and is not served" if value in ("TLS10", "TLS11") else "is unknown"
    raise ValueError(f"{value!r} {why}; allowed: TLS12, TLS13")


def _client_auth(value: str) -> str:
    if value in _VERIFY or value == "":
        return value or "NoClientCert"
    if value in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        instead = "VerifyClientCertIfGiven" if value == "RequestClientCert" else "RequireAndVerifyClientCert"
        raise ValueError(
            f"{value} takes certificates that nobody verified, which Python's ssl cannot do; use {instead} "
            f"with client_ca_file; allowed: {', '.join(_VERIFY)}"
        )
    raise ValueError(f"{value!r} is unknown; allowed: {', '.join(_VERIFY)}")


def _cipher(value: str) -> str:
    if value in _TLS12_SUITES or value in _TLS13_SUITES:
        return value
    raise ValueError(f"{value!r} is not a suite served here; allowed: {', '.join((*_TLS12_SUITES, *_TLS13_SUITES))}")


def _curves(values: list[str]) -> list[str]:
    for value in values:
        if value not in _CURVES:
            raise ValueError(f"{value!r} is unknown; allowed: {', '.join(_CURVES)}")
    if len(values) > 1:
        raise ValueError(f"got {len(values)} curves, and Python's ssl can be told one; allowed: one, or leave it out")
    return values


def _not_inline(value: str) -> str:
    if value:
        raise ValueError("PEM text in this file is not read; write it to a file and use cert_file and key_file")
    return value


class TlsSection(BaseModel):
    """``tls_server_config``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cert: Annotated[str, AfterValidator(_not_inline)] = ""
    key: Annotated[SecretStr, AfterValidator(lambda v: SecretStr(_not_inline(v.get_secret_value())))] = SecretStr("")
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: Annotated[str, AfterValidator(_client_auth)] = "NoClientCert"
    client_ca_file: str = ""
    client_allowed_sans: list[str] = []
    min_version: Annotated[str, AfterValidator(_version)] = "TLS12"
    max_version: Annotated[str, AfterValidator(_version)] = "TLS13"
    cipher_suites: list[Annotated[str, AfterValidator(_cipher)]] = []
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[list[str], AfterValidator(_curves)] = []


class TlsContext(ssl.SSLContext):
    """A server context that also carries which client names may connect; empty means any."""

    allowed_sans: frozenset[str] = frozenset()


def san_values(certificate: Mapping[str, object] | None) -> set[str]:
    """Names of ``SSLObject.getpeercert()`` that may be allowed: DNS, e-mail, IP, URI, as Go prints them."""
    names = (certificate or {}).get("subjectAltName", ())
    found = set()
    for kind, value in names if isinstance(names, tuple) else ():
        if kind == "IP Address":
            found.add(str(ipaddress.ip_address(value.strip())))
        elif kind in ("DNS", "email", "URI"):
            found.add(value)
    return found


def tls_context(document: Document, section: TlsSection) -> TlsContext:
    """The server context of a section; certificate files are read now.

    Raises:
        palegreen.runtime.yamlfile.ConfigError: a file or a choice that cannot be served with.
    """

    def refuse(key: str, problem: str) -> NoReturn:
        raise document.error((_TLS, key), problem) from None

    folder = document.path.parent
    for key, name in (("cert_file", section.cert_file), ("key_file", section.key_file)):
        if not name:
            refuse(key, "the key is required and missing; allowed: a PEM file")
    for key, name in (
        ("cert_file", section.cert_file),
        ("key_file", section.key_file),
        ("client_ca_file", section.client_ca_file),
    ):
        try:
            _ = (folder / name).read_bytes() if name else b""
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            refuse(key, f"{folder / name} cannot be read: {reason}")

    minimum, maximum = _VERSIONS[section.min_version], _VERSIONS[section.max_version]
    if maximum < minimum:
        refuse(
            "max_version",
            f"{section.max_version} is below min_version; allowed: {section.min_version} or more",
        )
    context = TlsContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = minimum, maximum
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if section.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, section, folder, refuse)

    suites = [_TLS12_SUITES[name] for name in section.cipher_suites if name in _TLS12_SUITES]
    if suites:
        try:
            context.set_ciphers(":".join(suites))
        except ssl.SSLError:
            refuse("cipher_suites", "this OpenSSL has none of these suites")
    elif section.cipher_suites and minimum < ssl.TLSVersion.TLSv1_3:
        refuse("cipher_suites", "the list has TLS 1.3 suites alone; add one of TLS 1.2 or set min_version: TLS13")
    if section.curve_preferences:
        try:
            context.set_ecdh_curve(_CURVES[section.curve_preferences[0]])
        except (ValueError, ssl.SSLError):
            refuse("curve_preferences", "this OpenSSL does not have the curve; leave it out")
    _client_certificates(context, section, folder, refuse)
    return context


class _Refuse(Protocol):
    def __call__(self, key: str, problem: str) -> NoReturn: ...


def _load_pair(context: TlsContext, section: TlsSection, folder: Path, refuse: _Refuse) -> None:
    certificate, key = folder / section.cert_file, folder / section.key_file
    asked = False

    def no_password() -> str:  # without it OpenSSL asks on the terminal
        nonlocal asked
        asked = True
        return ""

    try:
        context.load_cert_chain(certificate, key, no_password)
    except (OSError, ValueError) as error:
        if asked:
            refuse("key_file", f"{key} is encrypted; allowed: a key without a password")
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            refuse("key_file", f"{key} is not the key of the certificate in cert_file")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
        except OSError:
            refuse("cert_file", f"{certificate} is not a certificate; allowed: PEM")
        refuse("key_file", f"{key} is not a usable private key; allowed: PEM")


def _client_certificates(context: TlsContext, section: TlsSection, folder: Path, refuse: _Refuse) -> None:
    verify = _VERIFY[section.client_auth_type]
    given = bool(section.client_ca_file or section.client_ca)
    if section.client_ca_file and section.client_ca:
        refuse("client_ca", "given beside client_ca_file; allowed: one of them")
    if given and verify is ssl.CERT_NONE:
        policies = ", ".join(list(_VERIFY)[1:])
        refuse("client_auth_type", f"a client CA is given and no certificate asked for; allowed: {policies}")
    if not given and verify is not ssl.CERT_NONE:
        refuse("client_ca_file", f"required by client_auth_type {section.client_auth_type}; allowed: a PEM file")
    if section.client_allowed_sans and verify is not ssl.CERT_REQUIRED:
        refuse("client_allowed_sans", "only with client_auth_type: RequireAndVerifyClientCert")
    if given:
        try:
            if section.client_ca:
                context.load_verify_locations(cadata=section.client_ca)
            else:
                context.load_verify_locations(cafile=folder / section.client_ca_file)
        except (OSError, ValueError):
            refuse(
                "client_ca_file" if section.client_ca_file else "client_ca",
                "no certificate in it; allowed: PEM",
            )
    context.verify_mode = verify
    context.allowed_sans = frozenset(section.client_allowed_sans)
