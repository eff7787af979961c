"""An engine as a source, through a real HTTP server: hostile answers, discovery, facts, credentials."""

from __future__ import annotations

import datetime
import gc
import ipaddress
import json
import re
import socket
import ssl
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app
from support.engine import VLLM_PAGE, samples, source, value
from support.server import NOT_FOUND, OPENMETRICS, Answer, Link, Server, drip, hang, response

from palegreen.exporter.source import SourceError
from palegreen.runtime.yamlfile import ConfigError

RUNNING = "palegreen_engine_requests_running"
GENERATED = "palegreen_engine_generation_tokens_total"
INFO = "palegreen_engine_info"
LLAMA_PAGE = """\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
"""
TRTLLM_PAGE = """\
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="t"} 5.0
"""
PS = {"models": [{"name": "qwen3:8b", "size": 6_000, "size_vram": 4_500, "context_length": 4096}]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def as_json(body: object) -> bytes:
    return response(json.dumps(body), "application/json")


def refused(answer: Answer, path: str = "/metrics", **options: object) -> str:
    """Why a reading of that page failed; always one line that names the address."""
    with Server({path: answer}) as server:
        with pytest.raises(SourceError) as failure:
            source(server.url + path, **options).collect()
        text = str(failure.value)
        assert text.startswith(server.url)
        assert len(text.splitlines()) == 1
    return text


# Hostile answers.


def streamed(link: Link) -> None:
    """200 MB without a declared length."""
    link.send(HEAD + b"Connection: close\r\n\r\n")
    for _ in range(200):
        link.send(b"vllm:num_requests_running 1\n" * 35_715)


def chunked(link: Link) -> None:
    link.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        link.send(b"f4240\r\n" + b"a" * 1_000_000 + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (response("<!doctype html><html></html>", "text/html"), "an HTML page, not metrics"),
        (response("\n <html></html>", "text/plain"), "an HTML page, not metrics"),
        (response('{"a": 1}', "application/json"), "JSON, not metrics text"),
        (response("[]", "text/plain"), "JSON, not metrics text"),
        (response(b"# \xff\xfe\x00binary", "text/plain"), "not text: byte 2 is not UTF-8"),
        (response(b"\x7fELF\x01\x01\x00\n", "application/octet-stream"), "no metric name"),
        (response(""), "empty page"),
        (NOT_FOUND, "HTTP 404 Not Found"),
        (response("{}", "application/json", "501 Not Implemented"), "HTTP 501 Not Implemented"),
        (response("loading", "text/plain", "503 Service Unavailable"), "HTTP 503 Service Unavailable"),
        (response("", status="204 No Content"), "HTTP 204 No Content"),
        (
            response("", status="302 Found", headers={"Location": "/elsewhere"}),
            r"redirected \(HTTP 302\) to /elsewhere",
        ),
        (
            response(zlib.compress(VLLM_PAGE.encode(), wbits=31), headers={"Content-Encoding": "gzip"}),
            "encoded as gzip, which was not asked for",
        ),
        (HEAD + b"Content-Length: 9999\r\n\r\n" + VLLM_PAGE.encode(), "body ended after [0-9]+ of 9999 bytes"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nvllm", "body ended after"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n", "127.0.0.1"),
        (HEAD + b"Content-Length: few\r\n\r\n", "empty page"),
        (b"", "does not speak HTTP or closed the connection"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP or closed the connection"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak HTTP or closed the connection"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Field: 1\r\n" * 500 + b"\r\n", "more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", "LineTooLong|header line"),
        (response(VLLM_PAGE.removesuffix("\n")), "cut short"),
        (response(VLLM_PAGE, OPENMETRICS), "cut short: OpenMetrics without its closing # EOF"),
        (response(VLLM_PAGE.replace(" 3.0", " NaN")), "vllm:num_requests_running is NaN"),
        (response(VLLM_PAGE.replace("# TYPE vllm:num_requests_running gauge\n", "")), "has no TYPE"),
        (response(VLLM_PAGE + VLLM_PAGE), "series given twice"),
    ],
)
def test_a_bad_answer_is_refused_with_its_cause_in_one_line(answer: Answer, cause: str) -> None:
    assert re.search(cause, refused(answer))


def test_a_redirect_is_not_followed() -> None:
    with Server({"/elsewhere": response(VLLM_PAGE)}) as server:
        server.answers["/metrics"] = response("", status="301 Moved", headers={"Location": server.url + "/elsewhere"})
        with pytest.raises(SourceError, match="redirected"):
            source(server.url + "/metrics").collect()
        assert server.paths == ["/metrics"]


def test_nothing_but_identity_is_asked_for() -> None:
    with Server({"/metrics": response(VLLM_PAGE)}) as server:
        source(server.url + "/metrics").collect()
        assert server.requests[0][1]["accept-encoding"] == "identity"


def test_a_refused_connection_is_named() -> None:
    with Server({}) as server:
        port = server.port
    with pytest.raises(SourceError, match=f"connection refused by 127.0.0.1:{port}"):
        source(f"http://127.0.0.1:{port}").collect()


def test_a_declared_body_over_the_limit_is_refused_unread() -> None:
    text = refused(drip(b"a" * 1000, HEAD + b"Content-Length: 209715200\r\n\r\n"), body_limit=1 << 20)
    assert "body of 209715200 bytes is over the limit of 1048576" in text


@pytest.mark.parametrize("answer", [streamed, chunked])
def test_an_endless_body_is_cut_at_the_limit_and_costs_little_memory(answer: Callable[[Link], None]) -> None:
    with Server({"/metrics": answer}) as server:
        engine = source(server.url + "/metrics", timeout=30.0, body_limit=2 << 20)
        gc.collect()
        tracemalloc.start()
        try:
            with pytest.raises(SourceError, match="over the limit of 2097152 bytes"):
                engine.collect()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 16 << 20  # the server's own buffers included
        server.stop()
        assert server.links[0].sent < 50_000_000


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        drip(b"a" * 10_000),
        drip(b"X-Slow: 1\r\n" * 100, b"HTTP/1.1 200 OK\r\n"),
        drip(VLLM_PAGE.encode() * 10, HEAD + b"Content-Length: 9999\r\n\r\n"),
        drip(VLLM_PAGE.encode() * 10, HEAD + b"Connection: close\r\n\r\n"),
        drip(b"1\r\na\r\n" * 1000, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
    ],
    ids=["silent", "status", "headers", "body", "body without length", "chunks"],
)
def test_a_slow_answer_ends_at_the_deadline_and_says_so(answer: Answer) -> None:
    began = time.monotonic()
    assert "no complete answer within 0.5 s" in refused(answer, timeout=0.5)
    assert 0.4 < time.monotonic() - began < 5


def test_a_server_that_never_accepts_ends_at_the_deadline() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]  # fill what the kernel would accept
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(address)
            with pytest.raises(SourceError, match=r"no complete answer within 0\.3 s"):
                source(f"http://127.0.0.1:{address[1]}/metrics", timeout=0.3).collect()
        finally:
            for client in waiting:
                client.close()


# Discovery.


def test_metrics_of_trtllm_serve_are_never_asked_for_where_they_would_be_consumed() -> None:
    answers = {"/prometheus/metrics": response(TRTLLM_PAGE), "/metrics": as_json([{"iter": 1}])}
    with Server(answers) as server:
        engine = source(server.url)
        for _ in range(3):
            assert value(samples(engine.collect()), RUNNING, engine="trtllm_serve") == 5
        server.answers["/prometheus/metrics"] = response("")  # fails, is looked for again
        with pytest.raises(SourceError):
            engine.collect()
        with pytest.raises(SourceError):
            engine.collect()
        assert "/metrics" not in server.paths


def test_json_at_metrics_points_to_where_trtllm_serve_has_its_text() -> None:
    assert "/prometheus/metrics" in refused(as_json([]))


def test_the_path_that_was_found_is_kept_while_it_answers() -> None:
    with Server({"/metrics": response(VLLM_PAGE)}) as server:
        engine = source(server.url)
        for _ in range(3):
            engine.collect()
        assert server.paths.count("/prometheus/metrics") == 1
        assert server.paths.count("/metrics") == 3


def test_a_page_at_another_path_is_read_when_the_address_names_it() -> None:
    with Server({"/custom/metrics?format=text": response(VLLM_PAGE)}) as server:
        assert value(samples(source(server.url + "/custom/metrics?format=text").collect()), RUNNING) == 3


def test_an_engine_is_found_on_a_server_that_answers_every_other_path_with_a_web_page() -> None:
    web = response("<!doctype html>", "text/html")
    with Server({"/prometheus/metrics": web, "/metrics": response(VLLM_PAGE), "/version": web}) as server:
        assert value(samples(source(server.url).collect()), RUNNING, engine="vllm") == 3


def test_a_server_without_any_page_says_what_each_path_gave() -> None:
    with Server({}) as server, pytest.raises(SourceError, match=r"no metrics page: .*/metrics: HTTP 404.*/api/ps: "):
        source(server.url).collect()


def test_a_page_served_by_prometheus_client_is_recognised_with_its_counters() -> None:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "", ["model_name"], registry=registry).labels("m").set(3)
    Counter("vllm:generation_tokens", "", ["model_name"], registry=registry).labels("m").inc(7)

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            found = samples(source(f"http://127.0.0.1:{server.server_port}").collect())
        finally:
            server.shutdown()
            thread.join()
    assert value(found, RUNNING, model="m") == 3
    assert value(found, GENERATED, model="m") == 7


def test_ollamas_loaded_models_are_read_from_its_api() -> None:
    with Server({"/api/ps": as_json(PS), "/api/version": as_json({"version": "0.12.3"})}) as server:
        found = samples(source(server.url).collect())
    memory = "palegreen_engine_model_memory_bytes"
    assert value(found, memory, engine="ollama", model="qwen3:8b", location="gpu") == 4500
    assert value(found, memory, engine="ollama", model="qwen3:8b", location="host") == 1500
    assert value(found, "palegreen_engine_state", state="ready") == 1
    assert value(found, INFO, version="0.12.3") == 1


def test_ollama_without_a_loaded_model_is_up_and_gives_no_series() -> None:
    with Server({"/api/ps": as_json({"models": []})}) as server:
        engine = source(server.url)
        assert samples(engine.collect()) == []
        server.answers["/api/ps"] = as_json(PS)
        assert value(samples(engine.collect()), "palegreen_engine_state", state="ready") == 1


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        '{"models": 3}',
        '{"models": [3]}',
        '{"models": [{"size": 1}]}',
        '{"models": [{"name": "m", "size": 1' + "0" * 400 + "}]}",
        '{"models": [{"name": "m", "size": NaN}]}',
        '{"models": ' + "[" * 100_000,
    ],
    ids=["cut", "list", "number", "item", "nameless", "huge", "NaN", "deep"],
)
def test_json_that_is_not_ollamas_is_refused_in_one_line(body: str) -> None:
    assert "not the JSON of Ollama" in refused(response(body, "application/json"), "/api/ps")


def test_text_that_no_exposition_can_hold_is_replaced_and_not_a_failure() -> None:
    models = {"models": [{"name": "half\ud800", "size": 1, "size_vram": 1}]}
    with Server({"/api/ps": as_json(models), "/api/version": as_json({"version": "\udfff1"})}) as server:
        found = samples(source(server.url).collect())
    assert value(found, "palegreen_engine_state", model="half?") == 1


# Facts from the engine's API.


def test_the_model_of_llama_cpp_is_the_one_its_api_names() -> None:
    answers = {
        "/metrics": response(LLAMA_PAGE),
        "/v1/models": as_json({"data": [{"id": "org/tiny.gguf"}]}),
        "/props": as_json({"build_info": "b7000-abc"}),
    }
    with Server(answers) as server:
        engine = source(server.url)
        for _ in range(2):
            found = samples(engine.collect())
            assert value(found, RUNNING, engine="llamacpp", model="org/tiny.gguf") == 1
        assert value(found, INFO, version="b7000-abc") == 1
        assert server.paths.count("/v1/models") == 1


def test_a_configured_model_is_believed_and_not_asked_for() -> None:
    with Server({"/metrics": response(LLAMA_PAGE), "/v1/models": as_json({"data": [{"id": "x"}]})}) as server:
        assert value(samples(source(server.url, model="mine").collect()), RUNNING, model="mine") == 1
        assert "/v1/models" not in server.paths


@pytest.mark.parametrize(
    "answer",
    [NOT_FOUND, response("<html>", "text/html"), as_json([]), as_json({"data": []}), as_json({"data": [{"id": 5}]})],
)
def test_an_engine_that_does_not_tell_its_model_is_read_all_the_same(answer: bytes) -> None:
    with Server({"/metrics": response(LLAMA_PAGE), "/v1/models": answer}) as server:
        assert value(samples(source(server.url).collect()), RUNNING, model="") == 1


def test_deeply_nested_facts_are_passed_over() -> None:
    deep = response('{"version": ' + "[" * 100_000, "application/json")
    with Server({"/metrics": response(VLLM_PAGE), "/version": deep}) as server:
        assert value(samples(source(server.url).collect()), RUNNING) == 3


def test_the_version_that_vllm_tells_decides_how_its_page_is_read() -> None:
    page = (
        "# TYPE vllm:gpu_prefix_cache_queries_total counter\n"
        'vllm:gpu_prefix_cache_queries_total{model_name="m"} 10\n'
        '# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size="16"} 1\n'
    )
    for version, tokens in (("0.8.5", 160), ("0.9.2", 10)):
        with Server({"/metrics": response(page), "/version": as_json({"version": version})}) as server:
            found = samples(source(server.url).collect())
            assert value(found, "palegreen_engine_prefix_cache_query_tokens_total", model="m") == tokens
            assert value(found, INFO, version=version) == 1


# Restarts.


def test_a_counter_that_starts_again_passes_through_as_a_reset() -> None:
    with Server({"/metrics": response(VLLM_PAGE)}) as server:
        engine = source(server.url)
        assert value(samples(engine.collect()), GENERATED) == 1234
        server.answers["/metrics"] = response(VLLM_PAGE.replace("1234.0", "5.0"))
        assert value(samples(engine.collect()), GENERATED) == 5


def test_another_engine_on_the_same_port_is_recognised_with_its_own_facts() -> None:
    with Server({"/metrics": response(VLLM_PAGE), "/version": as_json({"version": "0.11.0"})}) as server:
        engine = source(server.url)
        assert value(samples(engine.collect()), INFO, engine="vllm", version="0.11.0") == 1
        port = server.port
    with pytest.raises(SourceError, match="refused"):
        engine.collect()
    answers = {"/prometheus/metrics": response(TRTLLM_PAGE), "/version": as_json({"version": "1.1.0"})}
    with Server(answers, port=port) as server:
        found = samples(engine.collect())
    assert value(found, RUNNING, engine="trtllm_serve", model="t") == 5
    assert value(found, INFO, engine="trtllm_serve", version="1.1.0") == 1
    assert {s.labels["engine"] for s in found} == {"trtllm_serve"}


def test_another_model_after_a_restart_is_asked_for_again() -> None:
    with Server({"/metrics": response(LLAMA_PAGE), "/v1/models": as_json({"data": [{"id": "a"}]})}) as server:
        engine = source(server.url)
        assert value(samples(engine.collect()), RUNNING, model="a") == 1
        server.answers["/metrics"] = response("", status="503 Service Unavailable")
        with pytest.raises(SourceError):
            engine.collect()
        server.answers["/metrics"] = response(LLAMA_PAGE)
        server.answers["/v1/models"] = as_json({"data": [{"id": "b"}]})
        assert value(samples(engine.collect()), RUNNING, model="b") == 1


# Credentials and TLS.


def test_the_content_of_the_bearer_token_file_is_sent_with_every_request_and_follows_its_rotation(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with Server({"/metrics": response(VLLM_PAGE), "/version": as_json({"version": "1"})}) as server:
        engine = source(server.url, bearer_token_file=token)
        engine.collect()
        assert {headers["authorization"] for _, headers in server.requests} == {"Bearer first"}
        token.write_text("second")
        engine.collect()
        assert server.requests[-1][1]["authorization"] == "Bearer second"
        token.unlink()
        with pytest.raises(SourceError, match=f"{token}"):
            engine.collect()


@pytest.mark.parametrize("content", [b"two\nlines", b"\xff\xfe", "gehéim".encode(), b""])
def test_a_token_that_no_header_can_hold_is_refused_without_printing_it(tmp_path: Path, content: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    with pytest.raises(ConfigError, match="token") as failure:
        source("http://127.0.0.1:1", bearer_token_file=token)
    assert "lines" not in str(failure.value)
    assert "geh" not in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["bearer_token_file", "ca_file"])
def test_a_file_that_is_missing_is_a_configuration_error_that_names_it(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        source("https://127.0.0.1:1", **{key: tmp_path / "nowhere"})


def authority(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate of 127.0.0.1, and a server context that uses it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


def test_an_https_engine_is_read_with_its_authority_and_refused_with_another(tmp_path: Path) -> None:
    ca, context = authority(tmp_path, "right")
    wrong, _ = authority(tmp_path, "wrong")
    with Server({"/metrics": response(VLLM_PAGE)}, tls=context) as server:
        assert value(samples(source(server.url, ca_file=ca).collect()), RUNNING) == 3
        with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
            source(server.url, ca_file=wrong).collect()
        with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
            source(server.url).collect()
        assert value(samples(source(server.url, insecure_skip_verify=True).collect()), RUNNING) == 3


def test_plain_http_to_a_tls_port_and_tls_to_a_plain_port_are_refused_in_one_line(tmp_path: Path) -> None:
    ca, context = authority(tmp_path, "right")
    with Server({}, tls=context) as server, pytest.raises(SourceError) as failure:
        source(server.url.replace("https", "http")).collect()
    assert len(str(failure.value).splitlines()) == 1
    with Server({"/metrics": response(VLLM_PAGE)}) as server, pytest.raises(SourceError) as failure:
        source(server.url.replace("http", "https"), ca_file=ca, timeout=1.0).collect()
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize(
    "answer", [hang, drip(VLLM_PAGE.encode() * 10, HEAD + b"Connection: close\r\n\r\n")], ids=["silent", "body"]
)
def test_a_slow_https_answer_ends_at_the_deadline(tmp_path: Path, answer: Answer) -> None:
    ca, context = authority(tmp_path, "right")
    with Server({"/metrics": answer}, tls=context) as server:
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"no complete answer within 0\.5 s"):
            source(server.url + "/metrics", ca_file=ca, timeout=0.5).collect()
        assert time.monotonic() - began < 5


def test_a_slow_tls_handshake_ends_at_the_deadline(tmp_path: Path) -> None:
    ca, _ = authority(tmp_path, "right")

    def dripping(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb")  # a server hello of 16 KiB, to begin with
                for _ in range(100):
                    time.sleep(0.05)
                    connection.sendall(b"\x03")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=dripping, args=(listener,), daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"no complete answer within 0\.5 s"):
            source(f"https://127.0.0.1:{listener.getsockname()[1]}/metrics", ca_file=ca, timeout=0.5).collect()
        assert time.monotonic() - began < 3
        thread.join(10)


LOADING = response(
    json.dumps({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}),
    "application/json",
    status="503 Service Unavailable",
)


def test_an_engine_that_is_loading_its_model_is_starting_and_has_not_failed() -> None:
    with Server({"/prometheus/metrics": LOADING, "/metrics": LOADING}) as server:
        reading = source(server.url, model="m")
        found = samples(reading.collect())
        assert [(s.name, s.labels["state"], s.labels["engine"], s.value) for s in found] == [
            ("palegreen_engine_state", "starting", "llamacpp", 1.0)
        ]
        server.answers = {"/metrics": response(LLAMA_PAGE)}
        found = samples(reading.collect())
        assert value(found, "palegreen_engine_state", state="ready") == 1
        assert value(found, "palegreen_engine_state", state="starting") is None
        assert value(found, RUNNING) == 1


def test_a_server_that_is_overloaded_is_no_engine_that_starts() -> None:
    assert "HTTP 503" in refused(response("busy", status="503 Service Unavailable"))
