"""The web server through real sockets: listening, TLS, users, reload, hostile clients, stopping."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import http.client
import ipaddress
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from palegreen.runtime import webgate
from palegreen.runtime.web import ListenError, WebConfigSource, WebServer, parse_address
from palegreen.runtime.webconfig import load_web_config
from palegreen.runtime.webprotocol import Limits
from palegreen.runtime.yamlfile import ConfigError

BODY = b"x" * 300_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/broken":
        raise RuntimeError("two\nlines")
    if scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    body = BODY if scope["path"] == "/big" else scope["path"].encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def running(web_config: Path | None = None, **options: Any) -> Iterator[WebServer]:
    server = WebServer(options.pop("app", app), "127.0.0.1", 0, web_config, reload_interval=0, **options)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


def get(server: WebServer, path: str = "/", **options: Any) -> tuple[int, bytes, dict[str, str]]:
    connection = connect(server, options.pop("tls", None))
    with contextlib.closing(connection):
        connection.request(options.pop("method", "GET"), path, **options)
        response = connection.getresponse()
        return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}


def connect(server: WebServer, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    if tls:
        return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=5, context=tls)
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)


def raw(server: WebServer, sent: bytes) -> bytes:
    """What the server answers until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(65536):
                received += chunk
        return received


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, [], ca=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, stem: str, *sans: x509.GeneralName) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)])
        certificate = self._sign(subject, key, list(sans) or [x509.DNSName(stem)])
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _sign(self, subject: x509.Name, key: Any, sans: list[x509.GeneralName], ca: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def client(self, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.file)
        if pair:
            context.load_cert_chain(*pair)
        return context


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("server", LOOPBACK)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    file = tmp_path / "web.yml"

    def write(text: str) -> Path:
        file.write_text(text)
        return file

    return write


TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"


# Listening


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9450", ("0.0.0.0", 9450)),
        ("[::]:9450", ("::", 9450)),
        ("localhost:0", ("localhost", 0)),
        (":1", ("", 1)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9450", "a:", "a:b", "a:65536", "a:-1", "::1:80", "a:٣", "a:1e3"])
def test_a_bad_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ListenError, match=r"^.* is not an address; allowed: .*$"):
        parse_address(text)


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            WebServer(app, "127.0.0.1", port)
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_port_that_another_server_of_ours_holds_is_in_use_before_it_serves() -> None:
    first = WebServer(app, "127.0.0.1", 0)
    with contextlib.closing(first), pytest.raises(ListenError, match="in use"):
        WebServer(app, "127.0.0.1", first.port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "a..b", "x" * 70])
def test_a_host_that_is_not_ours_is_one_line(host: str) -> None:
    with pytest.raises(ListenError) as caught:
        WebServer(app, host, 0)
    assert str(caught.value).startswith(f"cannot listen on {host}:0: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "target"), [("[::]", "::1"), ("::1", "::1"), ("[::]", "127.0.0.1"), ("", "127.0.0.1")]
)
def test_ipv6_and_all_addresses_are_served(host: str, target: str) -> None:
    server = WebServer(app, host, 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        connection = http.client.HTTPConnection(target, server.port, timeout=5)
        connection.request("GET", "/v6")
        assert connection.getresponse().read() == b"/v6"
        connection.close()
    finally:
        server.stop()
        thread.join(10)


# Serving


def test_one_connection_serves_many_requests_and_names_no_software() -> None:
    with running() as server, contextlib.closing(connect(server)) as connection:
        for path in ("/a", "/b", "/big"):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            assert response.version == 11
            assert response.getheader("server") is None
            assert response.getheader("date")
            body = response.read()
            assert body == (BODY if path == "/big" else path.encode())


def test_an_app_that_fails_is_a_500_and_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with running() as server:
        assert get(server, "/broken")[0] == 500
        assert get(server, "/fine")[0] == 200
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "GET /broken" in record.getMessage()
    assert "test_web.py" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert record.exc_info is None


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"GARBAGE\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",  # no Host
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000,
    b"POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("sent", GARBAGE)
def test_what_is_not_http_is_a_400_and_the_server_lives(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running() as server:
        assert raw(server, sent).startswith(b"HTTP/1.1 400 ")
        assert get(server)[0] == 200
    assert all(r.exc_info is None and "\n" not in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nmore",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n" + b"a" * 500_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
    ],
)
def test_what_is_half_http_ends_the_connection_and_logs_no_traceback(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with running() as server:
        raw(server, sent)
        assert get(server)[0] == 200
    assert all(r.exc_info is None and "\n" not in r.getMessage() for r in caplog.records)


def test_a_declared_body_over_the_limit_is_a_413() -> None:
    with running() as server:
        answer = raw(server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_pipelined_requests_are_answered_in_order() -> None:
    one = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with running() as server:
        answer = raw(server, one % 1 + one % 2 + last)
    assert [line for line in answer.split(b"\r\n\r\n") if line.startswith(b"/")][-1] == b"/last"
    assert answer.count(b"200 OK") == 3


def test_stalled_clients_do_not_delay_another() -> None:
    with running() as server, contextlib.ExitStack() as stack:
        for sent in (
            b"",
            b"GET / HT",
            b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
            b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(sent)
        assert get(server, "/big")[1] == BODY


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 50])
def test_a_stalled_client_is_dropped_after_the_limit(sent: bytes) -> None:
    with running(limits=Limits(request=0.2, keep_alive=1)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", server.port))
        client.sendall(sent)
        connections = server._server.server_state.connections
        deadline = time.monotonic() + 5
        while not connections and time.monotonic() < deadline:
            time.sleep(0.01)
        while connections and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not connections


def test_one_connection_too_many_is_refused() -> None:
    with running(limits=Limits(connections=1)) as server, contextlib.closing(connect(server)) as first:
        first.request("GET", "/")
        first.getresponse().read()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            get(server)
        first.request("GET", "/again")
        assert first.getresponse().read() == b"/again"


# Stopping


def stop_time(server: WebServer) -> float:
    begun = time.monotonic()
    server.stop()
    while server.started:
        time.sleep(0.005)
    return time.monotonic() - begun


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 9],
)
def test_it_stops_soon_whatever_clients_do(
    secured: bool, sent: bytes, authority: Authority, config: Callable[[str], Path]
) -> None:
    with running(config(TLS) if secured else None) as server, contextlib.ExitStack() as stack:
        tls = authority.client() if secured else None
        idle = stack.enter_context(contextlib.closing(connect(server, tls)))
        idle.request("GET", "/")
        idle.getresponse().read()
        stalled = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        if tls:
            stalled = stack.enter_context(tls.wrap_socket(stalled, server_hostname="127.0.0.1"))
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))  # never shakes hands
        stalled.sendall(sent)
        assert stop_time(server) < 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))


def test_a_request_under_way_is_finished_before_stopping() -> None:
    asked, go = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        while not go.is_set():
            await asyncio.sleep(0.01)
        await app(scope, receive, send)

    with running(app=slow) as server, contextlib.closing(connect(server)) as connection:
        connection.request("GET", "/slow")
        asked.wait(5)
        server.stop()
        time.sleep(0.2)
        go.set()
        assert connection.getresponse().read() == b"/slow"


def test_signal_handlers_and_log_handlers_stay_as_they_were() -> None:
    def handlers() -> list[Any]:
        names = ("", "uvicorn", "uvicorn.error")
        return [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] + [
            list(logging.getLogger(name).handlers) for name in names
        ]

    before: list[Any] = []
    during: list[Any] = []
    after: list[Any] = []

    async def main() -> None:
        before.extend(handlers())
        server = WebServer(app, "127.0.0.1", 0)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        during.extend(handlers())
        server.stop()
        await serving
        after.extend(handlers())

    asyncio.run(main())
    assert before == during == after


def test_stop_before_serve_returns_at_once() -> None:
    server = WebServer(app, "127.0.0.1", 0)
    server.stop()
    asyncio.run(server.serve())


# TLS


def test_tls_is_served_and_plain_text_is_not(authority: Authority, config: Callable[[str], Path]) -> None:
    with running(config(TLS)) as server:
        assert server.tls
        assert get(server, "/tls", tls=authority.client())[1] == b"/tls"
        assert b"200" not in raw(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(authority: Authority, config: Callable[[str], Path]) -> None:
    old = authority.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with running(config(TLS)) as server, pytest.raises((ssl.SSLError, ConnectionError)):
        get(server, tls=old)


def test_versions_suites_and_curve_are_honoured(authority: Authority, config: Callable[[str], Path]) -> None:
    chosen = (
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  max_version: TLS12\n"
        "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n  curve_preferences: [CurveP384]\n"
    )
    with running(config(chosen)) as server:
        connection = connect(server, authority.client())
        with contextlib.closing(connection):
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            assert connection.sock.version() == "TLSv1.2"
            assert connection.sock.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"  # type: ignore[index]
        other = authority.client()
        other.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(server, tls=other)
        with contextlib.suppress(ValueError):
            other = authority.client()
            other.set_ecdh_curve("X25519")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get(server, tls=other)


MUTUAL = (
    "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
    "  client_auth_type: {}\n  client_ca_file: ca.pem\n"
)
REFUSED = (ssl.SSLError, ConnectionError, http.client.HTTPException)


def test_a_client_without_a_verified_certificate_is_refused(
    authority: Authority, config: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger").issue("client")
    with running(config(MUTUAL.format("RequireAndVerifyClientCert"))) as server:
        assert get(server, tls=authority.client(authority.issue("client")))[0] == 200
        for pair in (None, stranger):
            with pytest.raises(REFUSED):
                get(server, tls=authority.client(pair))


def test_a_certificate_that_is_optional_is_verified_if_given(
    authority: Authority, config: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger").issue("client")
    with running(config(MUTUAL.format("VerifyClientCertIfGiven"))) as server:
        assert get(server, tls=authority.client())[0] == 200
        with pytest.raises(REFUSED):
            get(server, tls=authority.client(stranger))


@pytest.mark.parametrize(
    ("san", "allowed"),
    [
        (x509.DNSName("prometheus"), True),
        (x509.RFC822Name("ops@example.org"), True),
        (x509.UniformResourceIdentifier("spiffe://a/b"), True),
        (x509.IPAddress(ipaddress.ip_address("2001:db8::1")), True),
        (x509.DNSName("prometheus.evil"), False),
        (x509.DNSName("spiffe"), False),
    ],
)
def test_only_allowed_names_connect(
    san: x509.GeneralName, allowed: bool, authority: Authority, config: Callable[[str], Path]
) -> None:
    names = "  client_allowed_sans: [prometheus, ops@example.org, 'spiffe://a/b', '2001:db8::1']\n"
    client = authority.client(authority.issue("client", san))
    with running(config(MUTUAL.format("RequireAndVerifyClientCert") + names)) as server:
        with contextlib.nullcontext() if allowed else pytest.raises(REFUSED):
            assert get(server, tls=client)[0] == 200
        assert get(server, tls=authority.client(authority.issue("p", x509.DNSName("prometheus"))))[0] == 200


# Users and headers


def test_only_a_user_with_the_password_gets_in(config: Callable[[str], Path]) -> None:
    with running(config(f"basic_auth_users:\n  alice: {hashed('secret')}\n")) as server:
        for path in ("/metrics", "/healthz"):
            assert get(server, path, headers=basic("alice", "secret"))[0] == 200
            assert get(server, path)[0] == 401
        status, _, headers = get(server, headers=basic("alice", "wrong"))
        assert (status, headers["www-authenticate"]) == (401, "Basic")
        assert get(server, headers=basic("mallory", "secret"))[0] == 401


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YQ==",
        "Basic /////w==",
        "Bearer abc",
        "Basic OnNlY3JldA==",
        "Basic \x00",
    ],
)
def test_a_malformed_authorization_is_a_401(config: Callable[[str], Path], value: str) -> None:
    with running(config(f"basic_auth_users: {{alice: {hashed('secret')}}}\n")) as server:
        sent = f"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {value}\r\n\r\n"
        expected = b"HTTP/1.1 400" if "\x00" in value else b"HTTP/1.1 401"
        assert raw(server, sent.encode()).startswith(expected)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_every_prefix_and_a_long_password_are_understood(config: Callable[[str], Path], prefix: str) -> None:
    stored = prefix + hashed("p" * 72)[4:]
    with running(config(f"basic_auth_users: {{ünal: {stored}}}\n")) as server:
        assert get(server, headers=basic("ünal", "p" * 90))[0] == 200


def test_a_right_password_is_hashed_once_and_a_wrong_one_each_time_even_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bytes] = []

    def matches(password: bytes, stored: bytes) -> bool:
        calls.append(stored)
        return password == b"right"

    monkeypatch.setattr(webgate, "_matches", matches)
    users = {"alice": b"$2b$04$a", "bob": b"$2b$10$b"}

    async def main() -> None:
        passwords = webgate.Passwords()
        assert [await passwords.check(users, "alice", b"right") for _ in range(3)] == [True] * 3
        assert calls == [b"$2b$04$a"]
        assert [await passwords.check(users, "alice", b"wrong") for _ in range(2)] == [False] * 2
        # The answer for a stranger is no whatever the hash it is compared with says.
        assert [await passwords.check(users, "eve", b"right") for _ in range(2)] == [False] * 2
        assert calls[3:] == [b"$2b$10$b"] * 2
        # A changed hash is asked again.
        assert await passwords.check({"alice": b"$2b$04$c"}, "alice", b"right")
        assert len(calls) == 6
        for n in range(500):
            await passwords.check({f"u{n}": b"$2b$04$a"}, f"u{n}", b"right")
        assert len(passwords._right) <= 128
        assert not any(b"right" in digest for digest in passwords._right)
        passwords.close()

    asyncio.run(main())


def test_too_many_passwords_at_once_are_a_503_and_known_users_pass(
    config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, hold = webgate._matches, threading.Event()
    with (
        running(config(f"basic_auth_users: {{alice: {hashed('secret')}}}\n")) as server,
        contextlib.ExitStack() as s,
    ):
        s.callback(hold.set)
        assert get(server, headers=basic("alice", "secret"))[0] == 200
        monkeypatch.setattr(webgate, "_matches", lambda p, h: hold.wait(10) and original(p, h))
        for n in range(webgate._WAITING):
            busy = s.enter_context(contextlib.closing(connect(server)))
            busy.request("GET", "/", headers=basic("alice", f"wrong{n}"))
        deadline = time.monotonic() + 5
        while server._gate._passwords._waiting < webgate._WAITING and time.monotonic() < deadline:
            time.sleep(0.01)
        assert get(server, headers=basic("alice", "one more"))[0] == 503
        assert get(server, headers=basic("alice", "secret"))[0] == 200


def test_configured_headers_are_on_every_answer(config: Callable[[str], Path]) -> None:
    text = f"basic_auth_users: {{a: {hashed('b')}}}\nhttp_server_config:\n  headers: {{X-Frame-Options: deny}}\n"
    with running(config(text)) as server:
        for given in ({}, basic("a", "b")):
            assert get(server, headers=given)[2]["x-frame-options"] == "deny"


def test_more_requests_than_the_rate_are_a_429(config: Callable[[str], Path]) -> None:
    with running(config("rate_limit: {interval: 1h, burst: 2}\n")) as server:
        assert [get(server)[0] for _ in range(3)] == [200, 200, 429]


# Reload


def test_users_and_certificate_are_replaced_without_a_restart(
    authority: Authority, config: Callable[[str], Path]
) -> None:
    file = config(TLS + f"basic_auth_users: {{alice: {hashed('old')}}}\n")
    with running(file) as server:
        assert get(server, tls=authority.client(), headers=basic("alice", "old"))[0] == 200
        config(TLS + f"basic_auth_users: {{alice: {hashed('new one')}}}\n")
        assert get(server, tls=authority.client(), headers=basic("alice", "old"))[0] == 401
        assert get(server, tls=authority.client(), headers=basic("alice", "new one"))[0] == 200

        def serial() -> int:
            pem = ssl.get_server_certificate(("127.0.0.1", server.port))
            return x509.load_pem_x509_certificate(pem.encode()).serial_number

        before = serial()
        authority.issue("server", LOOPBACK)
        assert serial() != before
        assert server.last_reload_successful


def test_a_client_authority_is_replaced_without_a_restart(authority: Authority, config: Callable[[str], Path]) -> None:
    with running(config(TLS)) as server:
        assert get(server, tls=authority.client())[0] == 200
        config(MUTUAL.format("RequireAndVerifyClientCert"))
        with pytest.raises(REFUSED):
            get(server, tls=authority.client())


def test_a_broken_file_keeps_the_old_one_says_so_once_and_heals(
    authority: Authority, config: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    good = TLS + f"basic_auth_users: {{alice: {hashed('a')}}}\n"
    file = config(good)
    with running(file) as server:

        def status(user: str) -> int:
            return get(server, tls=authority.client(), headers=basic(user, "a"))[0]

        config("basic_auth_users: [\n")
        assert [status("alice") for _ in range(3)] == [200] * 3
        assert not server.last_reload_successful
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert f"{file}:2: not valid YAML" in record.getMessage()
        assert "\n" not in record.getMessage()
        config(good.replace("alice", "robert"))
        assert status("robert") == 200
        assert server.last_reload_successful


def test_a_new_certificate_heals_when_its_key_arrives(
    authority: Authority, config: Callable[[str], Path], tmp_path: Path
) -> None:
    with running(config(TLS)) as server:
        config(TLS.replace("server.", "next."))
        assert get(server, tls=authority.client())[0] == 200
        assert not server.last_reload_successful
        authority.issue("next", LOOPBACK)
        assert get(server, tls=authority.client())[0] == 200
        assert server.last_reload_successful


@pytest.mark.parametrize(("before", "after", "turned"), [(TLS, "", "off"), ("", TLS, "on")])
def test_turning_tls_on_or_off_needs_a_restart_and_the_log_says_so(
    before: str,
    after: str,
    turned: str,
    authority: Authority,
    config: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(config(before)) as server:
        config(after)
        assert get(server, tls=authority.client() if before else None)[0] == 200
        assert not server.last_reload_successful
    assert f"turning TLS {turned} needs a restart" in caplog.text


def test_files_are_looked_at_once_an_interval(config: Callable[[str], Path]) -> None:
    now = 0.0
    source = WebConfigSource(config("rate_limit: {interval: 1s, burst: 1}\n"), interval=1.0, clock=lambda: now)
    config("rate_limit: {interval: 1s, burst: 22}\n")
    now = 0.9
    assert source.current().rate_burst == 1
    now = 1.0
    assert source.current().rate_burst == 22


def test_a_configuration_that_is_refused_at_the_start_raises(config: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError):
        WebServer(app, "127.0.0.1", 0, config("basic_auth: {}\n"))


# Refused configurations

S = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
BAD = [
    (
        "tls_config: {}\n",
        "1: tls_config: unknown key, did you mean tls_server_config?; allowed: basic_auth_users, ",
    ),
    (
        S + "  min_versoin: TLS12\n",
        "4: tls_server_config.min_versoin: unknown key, did you mean min_version?; ",
    ),
    (S + "  min_version: TLS11\n", "4: tls_server_config.min_version: 'TLS11' is older than TLS 1.2 and "),
    (
        S + "  max_version: SSL3\n",
        "4: tls_server_config.max_version: 'SSL3' is unknown; allowed: TLS12, TLS13",
    ),
    (S + "  min_version: TLS13\n  max_version: TLS12\n", "5: tls_server_config.max_version: TLS12 is below "),
    (
        S + "  client_auth_type: RequestClientCert\n",
        "4: tls_server_config.client_auth_type: RequestClientCert takes ",
    ),
    (
        S + "  client_auth_type: RequireAnyClientCert\n",
        "4: tls_server_config.client_auth_type: RequireAnyClientCert ",
    ),
    (
        S + "  client_auth_type: Yes please\n",
        "4: tls_server_config.client_auth_type: 'Yes please' is unknown; allowed",
    ),
    (
        S + "  client_auth_type: RequireAndVerifyClientCert\n",
        "1: tls_server_config.client_ca_file: required by ",
    ),
    (S + "  client_ca_file: ca.pem\n", "1: tls_server_config.client_auth_type: a client CA is given and no "),
    (
        S + "  client_allowed_sans: [a]\n",
        "4: tls_server_config.client_allowed_sans: only with client_auth_type: ",
    ),
    (
        MUTUAL.format("RequireAndVerifyClientCert").replace("ca.pem", "web.yml"),
        "5: tls_server_config.client_ca_file: no certificate in it",
    ),
    (
        S + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n",
        "4: tls_server_config.cipher_suites[0]: 'TLS_RSA_WITH_RC4",
    ),
    (
        S + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
        "4: tls_server_config.cipher_suites: the list has TLS 1.3 ",
    ),
    (
        S + "  curve_preferences: [P256]\n",
        "4: tls_server_config.curve_preferences: 'P256' is unknown; allowed: ",
    ),
    (
        S + "  curve_preferences: [X25519, CurveP256]\n",
        "4: tls_server_config.curve_preferences: got 2 curves, ",
    ),
    (
        S + "  prefer_server_cipher_suites: 'no'\n",
        "4: tls_server_config.prefer_server_cipher_suites: got 'no'; ",
    ),
    (
        S + "  cert: PEM\n",
        "4: tls_server_config.cert: PEM text in this file is not read; write it to a file and ",
    ),
    (
        "tls_server_config: {min_version: TLS13}\n",
        "1: tls_server_config.cert_file: the key is required and missing",
    ),
    (
        S.replace("server.pem", "gone.pem"),
        "2: tls_server_config.cert_file: D/gone.pem cannot be read: No such file",
    ),
    (
        S.replace("server.pem", "web.yml"),
        "2: tls_server_config.cert_file: D/web.yml is not a certificate; allowed",
    ),
    (
        S.replace("server.key", "web.yml"),
        "3: tls_server_config.key_file: D/web.yml is not a usable private key",
    ),
    (
        S.replace("server.key", "other.key"),
        "3: tls_server_config.key_file: D/other.key is not the key of the ",
    ),
    (
        S.replace("server.key", "locked.key"),
        "3: tls_server_config.key_file: D/locked.key is encrypted; allowed",
    ),
    (
        "http_server_config:\n  headers:\n    Server: x\n",
        "3: http_server_config.headers.Server: unknown key; allowed: ",
    ),
    (
        "http_server_config:\n  headers:\n    X-Frame-Options: allow\n",
        "3: http_server_config.headers.X-Frame-Options: got 'allow'; allowed: ",
    ),
    (
        'http_server_config:\n  headers:\n    X-XSS-Protection: "1\\r\\nX: y"\n',
        "3: http_server_config.headers.X-XSS-Protection: the value has characters",
    ),
    (
        "http_server_config: {http2: maybe}\n",
        "1: http_server_config.http2: got 'maybe'; allowed: a valid boolean",
    ),
    ("basic_auth_users:\n  alice: hunter2\n", "2: basic_auth_users.alice: not a bcrypt hash; allowed: "),
    (
        "basic_auth_users:\n  alice: 12345\n",
        "2: basic_auth_users.alice: got a value that is not shown; allowed: ",
    ),
    (
        f"basic_auth_users:\n  a: {hashed('b').replace('$04$', '$31$')}\n",
        "2: basic_auth_users.a: bcrypt cost 31; allowed",
    ),
    (
        f"basic_auth_users:\n  'a:b': {hashed('b')}\n",
        "2: basic_auth_users.a:b: a user name cannot contain a colon",
    ),
    ("basic_auth_users: [alice]\n", "1: basic_auth_users: got a list; allowed: a mapping"),
    ("rate_limit:\n  interval: 5 s\n", "2: rate_limit.interval: got '5 s'; allowed: a duration such as "),
    (
        "rate_limit:\n  interval: 10\n  burst: 1\n",
        "2: rate_limit.interval: got 10; allowed: a duration such as ",
    ),
    (
        "rate_limit:\n  interval: 1s\n",
        "1: rate_limit.burst: burst is 0, which refuses everything; allowed: 1 or more",
    ),
    ("rate_limit:\n  burst: -1\n", "2: rate_limit.burst: got -1; allowed: greater than or equal to 0"),
]


@pytest.mark.parametrize(("text", "expected"), BAD, ids=[expected[:60] for _, expected in BAD])
def test_a_refused_configuration_is_one_line_with_file_line_and_key(
    text: str, expected: str, authority: Authority, config: Callable[[str], Path], tmp_path: Path
) -> None:
    authority.issue("other")
    key = serialization.load_pem_private_key((tmp_path / "server.key").read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"p"),
        )
    )
    with pytest.raises(ConfigError) as caught:
        load_web_config(config(text))
    message = str(caught.value)
    assert "\n" not in message
    assert "hunter2" not in message
    assert message.replace(str(tmp_path), "D").startswith(f"D/web.yml:{expected}")


def test_the_toolkits_own_example_keys_are_accepted(authority: Authority, config: Callable[[str], Path]) -> None:
    text = S + (
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  min_version: TLS12\n"
        "  max_version: TLS13\n  prefer_server_cipher_suites: false\n"
        "  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n"
        "http_server_config:\n  http2: true\n  headers:\n    Strict-Transport-Security: max-age=1\n"
        f"basic_auth_users:\n  123: {hashed('x')}\nrate_limit: {{interval: 1m30s, burst: 3}}\n"
    )
    loaded = load_web_config(config(text))
    assert loaded.tls is not None
    assert not loaded.tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert list(loaded.users) == ["123"]
    assert loaded.rate_interval == 90
    assert loaded.headers == ((b"strict-transport-security", b"max-age=1"),)
