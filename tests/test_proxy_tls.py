"""TLS on either side of the proxy."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.proxying import Upstream, answering, everything, exactly, ok, post, proxied
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.taps.proxy import Proxy
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.runtime.tally import Tally
from palegreen.runtime.yamlfile import ConfigError


class Identity:
    """A self-signed certificate in files; it is its own authority."""

    def __init__(self, folder: Path, *names: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(each)) if each[0].isdigit() else x509.DNSName(each) for each in names
        ]
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(exist_ok=True)
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "own", "127.0.0.1", "localhost")


def test_an_https_upstream_whose_certificate_is_of_the_given_authority_is_relayed(identity: Identity) -> None:
    names: list[str | None] = []
    server = identity.server()
    server.sni_callback = lambda _, name, __: names.append(name)
    with Upstream(answering(ok(), ok()), tls=server) as upstream:
        url = f"https://localhost:{upstream.port}"
        with proxied(url, upstream_ca_file=identity.certificate) as proxy:
            assert proxy.pipelined(post() * 2, 2 * len(ok())) == ok() * 2
            assert f"Host: localhost:{upstream.port}\r\n".encode() in upstream.received
            assert names == ["localhost"]
            assert [part for each in until(lambda: proxy.envelopes) for part in each.parts][:2] == [b"{}", b"{}"]


def test_a_certificate_that_nobody_vouches_for_is_a_502_that_says_so(identity: Identity) -> None:
    with Upstream(answering(ok()), tls=identity.server()) as upstream, proxied(upstream.url) as proxy:
        assert b"no connection to upstream: self-signed certificate" in proxy.pipelined(post(), 10_000)
        assert upstream.received == b""


def test_a_certificate_of_another_name_is_a_502_unless_verification_is_off(tmp_path: Path) -> None:
    other = Identity(tmp_path / "other", "other.example")
    with Upstream(answering(ok()), tls=other.server()) as upstream:
        with proxied(upstream.url, upstream_ca_file=other.certificate) as proxy:
            assert b"IP address mismatch" in proxy.pipelined(post(), 10_000)
        with proxied(upstream.url, upstream_insecure_skip_verify=True) as proxy:
            assert proxy.pipelined(post(), len(ok())) == ok()


def test_a_client_that_goes_ends_an_https_upstreams_connection(identity: Identity) -> None:
    with (
        Upstream(lambda connection: connection.wait_for_end(), tls=identity.server()) as upstream,
        proxied(upstream.url, upstream_ca_file=identity.certificate) as proxy,
    ):
        with proxy.connect() as client:
            client.sendall(post())
            until(lambda: upstream.received.endswith(b"{}"))
        until(lambda: upstream.connections[0].closed.is_set())
        assert until(lambda: proxy.envelopes)[0].meta["ended"] == "client_abort"


def test_clients_may_speak_tls_to_the_proxy(identity: Identity) -> None:
    with (
        Upstream(answering(ok(bytes(300_000)))) as upstream,
        proxied(upstream.url, proxy_tls_cert_file=identity.certificate, proxy_tls_key_file=identity.key) as proxy,
        identity.client().wrap_socket(proxy.connect(), server_hostname="localhost") as client,
    ):
        client.sendall(post(b"{}", "/v1/chat/completions", "Connection: close"))
        assert everything(client) == ok(bytes(300_000))


def test_handshakes_that_stall_hold_nobody_up(identity: Identity) -> None:
    with (
        Upstream(answering(ok())) as upstream,
        proxied(upstream.url, proxy_tls_cert_file=identity.certificate, proxy_tls_key_file=identity.key) as proxy,
        proxy.connect(),
        socket.create_connection(("127.0.0.1", proxy.port)) as babbler,
    ):
        babbler.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with identity.client().wrap_socket(proxy.connect(), server_hostname="localhost") as client:
            client.sendall(post())
            assert exactly(client, len(ok())) == ok()


def test_files_that_are_no_certificates_are_one_line_each(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "no.pem").write_text("no")
    for settings, message in (
        ({"upstream": "https://h", "upstream_ca_file": tmp_path / "no.pem"}, "upstream_ca_file: .* cannot be used"),
        ({"upstream": "https://h", "upstream_ca_file": tmp_path / "gone"}, "gone cannot be used: No such file"),
        (
            {"upstream": "http://h", "proxy_tls_cert_file": identity.key, "proxy_tls_key_file": identity.key},
            "proxy_tls_cert_file: .* cannot be used",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            Proxy(EvaluateConfig.model_validate(settings), Sampler(), lambda _: None, Tally())


def test_a_renewed_certificate_is_served_to_new_clients(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palegreen.evaluators.taps.proxy._CERTIFICATE_SECONDS", 0.02)
    with (
        Upstream(answering(ok())) as upstream,
        proxied(upstream.url, proxy_tls_cert_file=identity.certificate, proxy_tls_key_file=identity.key) as proxy,
    ):
        fresh = Identity(tmp_path / "fresh", "127.0.0.1", "localhost")
        shutil.copy(fresh.certificate, identity.certificate)
        proxy.settle()
        shutil.copy(fresh.key, identity.key)

        def accepted() -> bool:
            try:
                fresh.client().wrap_socket(proxy.connect(), server_hostname="localhost").close()
            except ssl.SSLError:
                return False
            return True

        until(accepted)
