"""The node daemon as a process: what it serves, how it takes failures, reloads and signals, and how it ends."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.daemon import Daemon, run
from support.engine import VLLM_PAGE
from support.prometheus import Prometheus, static
from support.server import Link, Server, hang, response
from support.tools import program
from support.waiting import until

from palegreen.catalogue.metrics import metrics

RUNNING = "palegreen_engine_requests_running"
UP = "palegreen_source_up"
RELOADED = "palegreen_config_last_reload_successful"
VLLM_CAPTURE = (Path(__file__).parent / "captures/engines/vllm.prom").read_text(encoding="utf-8")
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture
def engine() -> Iterator[Server]:
    with Server({"/metrics": response(VLLM_PAGE)}) as server:
        yield server


def engines_file(path: Path, *engines: tuple[str, str], more: str = "") -> Path:
    """A configuration file of engines by name and address, read five times a second."""
    listed = "".join(f"- {{url: '{url}', instance_id: {name}}}\n" for name, url in engines)
    written = path.with_suffix(".new")
    written.write_text(f"engine_interval: 200ms\n{more}engines:\n{listed or '  []'}\n", encoding="utf-8")
    written.rename(path)
    return path


# What is served.


def test_metrics_are_text_or_openmetrics_by_accept_and_gzip_by_accept_encoding(engine: Server) -> None:
    with Daemon("--engine", engine.url) as daemon:
        until(lambda: daemon.value(RUNNING) == 3)
        status, headers, body = daemon.get()
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "content-encoding" not in headers
        assert b"# EOF" not in body
        status, headers, body = daemon.get(headers={"Accept": OPENMETRICS})
        assert (status, headers["content-type"]) == (
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )
        assert body.endswith(b"# EOF\n")
        for accept in ("text/plain", OPENMETRICS):
            _, headers, body = daemon.get(headers={"Accept": accept, "Accept-Encoding": "gzip"})
            assert headers["content-encoding"] == "gzip"
            assert headers["vary"] == "Accept, Accept-Encoding"
            assert int(headers["content-length"]) == len(body)
            assert RUNNING.encode() in gzip.decompress(body)


def test_both_expositions_parse_and_everything_in_them_is_declared_with_its_labels() -> None:
    with Server({"/metrics": response(VLLM_CAPTURE)}) as engine, Daemon("--engine", engine.url) as daemon:
        until(lambda: daemon.value(UP, source="engine") == 1)
        text = list(parse_text(daemon.get()[2].decode()))
        openmetrics = list(parse_openmetrics(daemon.get(headers={"Accept": OPENMETRICS})[2].decode()))
    assert {f.name for f in text} == {f.name for f in openmetrics}
    for family in (*text, *openmetrics):
        declared = metrics().get(family.name) or metrics()[f"{family.name}_total"]
        assert (family.type, family.documentation) == (declared.exposed_type, declared.help)
        assert family.samples
        for sample in family.samples:
            extra = {"le"} if sample.name.endswith("_bucket") else set()
            assert set(sample.labels) == {*declared.labels, *extra}, sample.name
    names = {s.name for f in text for s in f.samples}
    assert {"palegreen_build_info", "process_cpu_seconds_total", "palegreen_source_sample_age_seconds"} <= names
    assert "palegreen_engine_time_to_first_token_seconds_bucket" in names


def test_health_is_200_and_readiness_waits_for_the_first_readings() -> None:
    released = []

    def later(link: Link) -> None:
        while not released and link.wait(0.05):
            pass
        link.send(response(VLLM_PAGE))

    with Server({"/metrics": later}) as engine, Daemon("--engine", f"{engine.url}/metrics") as daemon:
        assert daemon.get("/healthz")[0] == 200
        status, _, body = daemon.get("/readyz")
        assert status == 503
        assert body.decode().startswith("not read yet: ")
        assert daemon.get()[0] == 200
        released.append(True)
        until(lambda: daemon.get("/readyz")[0] == 200)


def test_a_daemon_whose_engine_is_down_is_ready_all_the_same() -> None:
    with Server({}) as server:
        gone = server.url
    with Daemon("--engine", gone) as daemon:
        until(lambda: daemon.get("/readyz")[0] == 200)
        assert daemon.value(UP, source="engine") == 0


def test_the_status_page_names_each_source_and_escapes_what_engines_say(engine: Server) -> None:
    with Server({"/metrics": response("<b>&</b>\n", "text/plain; charset=utf-8")}) as bad:
        addresses = ("--engine", engine.url, "--engine", f"{bad.url}/metrics")
        with Daemon(*addresses) as daemon:
            until(lambda: daemon.get("/readyz")[0] == 200)
            status, headers, body = daemon.get("/")
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "vLLM" in page
    assert "an HTML page, not metrics" in page
    assert engine.url in page
    assert "<b>" not in page


def test_other_paths_are_404_other_methods_405_and_head_has_no_body() -> None:
    with Daemon() as daemon:
        status, _, body = daemon.get("/nowhere")
        assert status == 404
        assert b"/metrics" in body
        status, headers, _ = daemon.get("/metrics", method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        status, headers, body = daemon.get(method="HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0


def test_users_of_the_web_configuration_file_get_in_and_nobody_else(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yaml"
    web.write_text(f"basic_auth_users:\n  prometheus: {hashed}\n")
    with Daemon("--web.config.file", str(web)) as daemon:
        for path in ("/metrics", "/healthz", "/"):
            assert daemon.get(path)[0] == 401
        credentials = "Basic " + base64.b64encode(b"prometheus:secret").decode()
        status, _, body = daemon.get(headers={"Authorization": credentials})
        assert status == 200
        assert b"palegreen_web_config_last_reload_successful 1.0" in body


# Engines that fail.


def test_a_killed_engine_loses_its_series_within_an_interval_is_logged_once_and_comes_back(engine: Server) -> None:
    arguments = ("--engine", engine.url, "--engine-interval", "200ms")
    with Daemon(*arguments) as daemon:
        until(lambda: daemon.value(RUNNING) == 3)
        engine.stop()
        killed = time.monotonic()
        until(lambda: not [s for s in daemon.samples() if s.name.startswith("palegreen_engine_")])
        assert time.monotonic() - killed < 3  # an interval of 0.2 s, and two renderings 0.5 s apart
        assert daemon.value(UP, source="engine") == 0
        assert daemon.value("palegreen_source_sample_age_seconds", source="engine") is None
        errors = daemon.value("palegreen_source_errors_total", source="engine")
        assert errors is not None
        until(lambda: (daemon.value("palegreen_source_errors_total", source="engine") or 0) > errors + 3)
        assert len(daemon.events("source.down")) == 1
        assert "connection refused" in daemon.events("source.down")[0]
        with Server({"/metrics": response(VLLM_PAGE)}, port=engine.port):
            until(lambda: daemon.value(RUNNING) == 3)
            assert daemon.value(UP, source="engine") == 1
            assert len(daemon.events("source.up")) == 2
        assert len(daemon.events("source.down")) <= 2


def test_a_cause_that_differs_only_in_its_numbers_is_logged_once() -> None:
    lengths = iter(range(1, 1000))

    def cut(link: Link) -> None:
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + VLLM_PAGE.encode()[: next(lengths)])

    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Server({"/metrics": cut}))
        daemon = stack.enter_context(Daemon("--engine", f"{engine.url}/metrics", "--engine-interval", "50ms"))
        until(lambda: (daemon.value("palegreen_source_errors_total", source="engine") or 0) > 5)
        assert len(daemon.events("source.down")) == 1
        engine.answers["/metrics"] = response("", status="503 Service Unavailable")
        until(lambda: len(daemon.events("source.down")) == 2)


def test_bad_engines_do_not_disturb_a_good_one_nor_the_scrape(engine: Server, tmp_path: Path) -> None:
    bad = {
        "/hung": hang,
        "/html": response("<html>", "text/html"),
        "/nan": response(VLLM_PAGE.replace(" 3.0", " NaN")),
        "/twice": response(VLLM_PAGE * 2),
        "/half": response('{"models": [{"name": "\\ud800", "size": 1}]}', "application/json"),
        "/binary": response(bytes(range(256)) * 100),
    }
    with Server(bad) as server:
        listed = [(path[1:], server.url + path) for path in bad]
        with Server({"/api/ps": bad["/half"]}) as ollama:
            listed = [*listed, ("ollama", f"{ollama.url}/api/ps"), ("good", engine.url)]
            config = engines_file(tmp_path / "c.yaml", *listed, more="engine_timeout: 300ms\n")
            with Daemon("--config", str(config)) as daemon:
                until(lambda: daemon.get("/readyz")[0] == 200)
                until(lambda: (daemon.value("palegreen_source_errors_total", target="hung") or 0) > 2)
                up = {s.labels["target"]: s.value for s in daemon.samples() if s.name == UP}
                assert up == {path[1:]: 0 for path in bad} | {"ollama": 1, "good": 1}
                assert daemon.value(RUNNING, instance_id="good") == 3
                assert {s.labels["instance_id"] for s in daemon.samples() if s.name == RUNNING} == {"good"}
                assert len(daemon.events("source.down")) == len(bad)
                age = daemon.value("palegreen_source_sample_age_seconds", target="good")
                assert age is not None
                assert age < 3
                assert not [line for line in daemon.log if "exception" in line or "Traceback" in line]


# Reloading.


def test_engines_come_go_and_change_with_the_file_and_the_rest_keeps_running(engine: Server, tmp_path: Path) -> None:
    with Server({"/metrics": response(VLLM_PAGE.replace(" 3.0", " 8.0"))}) as other:
        config = engines_file(tmp_path / "c.yaml", ("a", engine.url))
        with Daemon("--config", str(config)) as daemon:
            until(lambda: daemon.value(RUNNING, instance_id="a") == 3)
            before = daemon.value("palegreen_config_last_reload_success_timestamp_seconds")
            engines_file(config, ("a", engine.url), ("b", other.url))
            until(lambda: daemon.value(RUNNING, instance_id="b") == 8)
            assert daemon.value(RUNNING, instance_id="a") == 3
            assert engine.paths.count("/version") == 1  # was not started anew
            engines_file(config, ("a", other.url))
            until(lambda: daemon.value(RUNNING, instance_id="a") == 8)
            until(lambda: daemon.value(RUNNING, instance_id="b") is None)
            assert daemon.value(UP, target="b") is None
            engines_file(config)
            until(lambda: daemon.value(UP, source="engine") is None)
            after = daemon.value("palegreen_config_last_reload_success_timestamp_seconds")
            assert before is not None
            assert after is not None
            assert after > before


def test_a_bad_file_keeps_the_old_configuration_and_says_so_until_it_is_mended(engine: Server, tmp_path: Path) -> None:
    config = engines_file(tmp_path / "c.yaml", ("a", engine.url))
    with Daemon("--config", str(config)) as daemon:
        until(lambda: daemon.value(RUNNING, instance_id="a") == 3)
        assert daemon.value(RELOADED) == 1
        bad = tmp_path / "bad.yaml"
        bad.write_text("engine_intervall: 3s\n")
        bad.rename(config)
        until(lambda: daemon.value(RELOADED) == 0)
        refusals = daemon.events("config.refused")
        assert len(refusals) == 1
        assert "c.yaml:1: engine_intervall: unknown key, did you mean engine_interval?" in refusals[0]
        assert daemon.value(RUNNING, instance_id="a") == 3
        engines_file(config, ("b", engine.url))
        until(lambda: daemon.value(RELOADED) == 1)
        until(lambda: daemon.value(RUNNING, instance_id="b") == 3)


def test_sighup_reloads_at_once_and_once(engine: Server, tmp_path: Path) -> None:
    config = engines_file(tmp_path / "c.yaml", ("a", engine.url))
    with Daemon("--config", str(config)) as daemon:
        until(lambda: daemon.value(RUNNING, instance_id="a") == 3)
        engines_file(config, ("b", engine.url))
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("config.reloaded"))
        until(lambda: daemon.value(RUNNING, instance_id="b") == 3)
        time.sleep(1.5)  # the next look at the file
        assert len(daemon.events("config.reloaded")) == 1
        daemon.signal(signal.SIGHUP)
        until(lambda: len(daemon.events("config.reloaded")) == 2)


def test_a_key_that_needs_a_restart_is_named_and_not_taken_over(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("listen_address: 127.0.0.1:0\n")
    with Daemon("--config", str(config), address="") as daemon:
        config.write_text("listen_address: 127.0.0.1:1\nlog_format: json\n")
        daemon.signal(signal.SIGHUP)
        warned = until(lambda: daemon.events("config.needs_restart"))
        assert "listen_address, log_format" in warned[0]
        assert daemon.get("/healthz")[0] == 200


# Ending.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_under_two_seconds_even_with_a_hung_engine_and_a_stalled_client(
    number: signal.Signals,
) -> None:
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Server({"/metrics": hang}))
        daemon = stack.enter_context(Daemon("--engine", f"{engine.url}/metrics", "--engine-timeout", "1m"))
        until(lambda: engine.paths)
        stalled = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        stalled.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        began = time.monotonic()
        daemon.signal(number)
        assert daemon.wait(10) == 0
        assert time.monotonic() - began < 2
        assert "node.stopped" in daemon.log[-1]


def test_once_prints_one_exposition_and_exits(engine: Server) -> None:
    with Server({"/metrics": response("<html>", "text/html")}) as bad:
        asked = ("--no-nvml", "--no-network", "--no-kubelet", "--engine", engine.url, "--engine", f"{bad.url}/metrics")
        done = run("node", "--once", *asked)
    assert done.returncode == 0
    families = {family.name: family for family in parse_text(done.stdout)}
    assert [s.value for s in families[RUNNING].samples] == [3]
    assert sorted(s.value for s in families[UP].samples) == [0, 1]
    assert "palegreen_build_info" in families


# Refusals at the start.


def test_a_port_in_use_is_one_line_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("node", "--no-nvml", "--listen-address", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"palegreen: cannot listen on {address}: Address already in use\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine_intervall: 5s\n", ":1: engine_intervall: unknown key, did you mean engine_interval?; allowed: "),
        ("# \nengine_interval: soon\n", ":2: engine_interval: got 'soon'; allowed: a number of seconds, "),
        ("engines:\n- url: ftp://x\n", ":2: engines[0].url: got 'ftp://x'; allowed: http://HOST:PORT or "),
        ("engines:\n- endpoint: x\n", ":2: engines[0].url: the key is required and missing"),
        ("log_level: loud\n", ":1: log_level: got 'loud'; allowed: 'debug', 'info', 'warning' or 'error'"),
        ("nvml: [1]\n", ":1: nvml: got a list; allowed: "),
        ("a: b: c\n", ":1: not valid YAML: "),
        ("- 1\n", ":1: the file is not a mapping; allowed: "),
        (
            "engines:\n- url: http://a:1\n- url: http://a:1/metrics\n",
            ":3: engines[1].url: instance_id 'a:1' is that of http://a:1 too; allowed: ",
        ),
    ],
)
def test_a_bad_file_is_one_line_with_file_line_key_and_what_is_allowed_and_exit_2(
    tmp_path: Path, text: str, said: str
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    done = run("node", "--no-nvml", "--config", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"palegreen: {config}{said}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--engine-interval", "soon"], {}, "--engine-interval: got 'soon'; allowed: a number of seconds"),
        (["--engine-interval", "0"], {}, "--engine-interval: got '0'; allowed: greater than 0"),
        (["--engine", "nonsense"], {}, "--engine: got 'nonsense'; allowed: http://HOST:PORT"),
        (["--listen-address", "9450"], {}, "--listen-address: '9450' is not an address; allowed: HOST:PORT"),
        ([], {"PALEGREEN_ENGINE_TIMEOUT": "x"}, "PALEGREEN_ENGINE_TIMEOUT: got 'x'; allowed: a number of seconds"),
        ([], {"PALEGREEN_ENGINE_BODY_LIMIT": "much"}, "PALEGREEN_ENGINE_BODY_LIMIT: got 'much'; allowed: a number"),
        (["--config", "/nowhere.yaml"], {}, "/nowhere.yaml: cannot be read: No such file or directory"),
        (["--engine-mappings", "/nowhere"], {}, "engine_mappings: /nowhere is not a folder; allowed: "),
    ],
)
def test_a_bad_flag_or_variable_is_one_line_that_names_it_and_exit_2(
    arguments: list[str], env: dict[str, str], said: str
) -> None:
    done = run("node", "--no-nvml", *arguments, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"palegreen: {said}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "env", "name"),
    [
        (["--log-level", "loud"], {}, "--log-level"),
        ([], {"PALEGREEN_LOG_LEVEL": "loud"}, "PALEGREEN_LOG_LEVEL"),
        ([], {"PALEGREEN_NVML": "maybe"}, "PALEGREEN_NVML"),
    ],
)
def test_a_bad_choice_or_boolean_is_one_line_that_names_it_and_exit_2(
    arguments: list[str], env: dict[str, str], name: str
) -> None:
    done = run("node", *arguments, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith(f"palegreen: {name}: ")
    assert done.stderr.count("\n") == 1


# Flags, environment, file, log.


def test_a_flag_wins_over_the_environment_and_that_over_the_file_and_engines_add_up(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("log_format: json\nlisten_address: 127.0.0.1:1\nengines: [{url: 'http://127.0.0.1:1'}]\n")
    env = {"PALEGREEN_CONFIG": str(config), "PALEGREEN_LISTEN_ADDRESS": "127.0.0.1:0"}
    with Daemon(env=env, address="") as daemon:  # the variable, not the file's port 1
        assert json.loads(daemon.log[0])["level"]
        assert daemon.port > 1
    env |= {"PALEGREEN_LOG_FORMAT": "json", "PALEGREEN_ENGINE": "http://127.0.0.1:2 http://127.0.0.1:3"}
    with Daemon("--log-format", "logfmt", "--engine", "http://127.0.0.1:4", env=env, address="") as daemon:
        assert daemon.events("node.listening")[0].startswith("time=")
        until(lambda: daemon.get("/readyz")[0] == 200)
        targets = {s.labels["target"].rpartition(":")[2] for s in daemon.samples() if s.name == UP}
        assert targets == {"1", "4"}  # --engine in place of PALEGREEN_ENGINE, beside the file's
    with Daemon(env=env, address="") as daemon:
        until(lambda: daemon.get("/readyz")[0] == 200)
        targets = {s.labels["target"].rpartition(":")[2] for s in daemon.samples() if s.name == UP}
        assert targets == {"1", "2", "3"}


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_log_is_one_line_an_event(form: str) -> None:
    page = response('# TYPE vllm:num_requests_running gauge\nvllm:x{a="two\nlines"} 1\n')
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Server({"/metrics": page}))
        daemon = stack.enter_context(Daemon("--engine", f"{engine.url}/metrics", "--log-format", form))
        until(lambda: daemon.events("source.down"))
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
        log = daemon.log
    if form == "json":
        events = [json.loads(line) for line in log]
        assert all({"time", "level", "event"} <= set(event) for event in events)
        found = [event["event"] for event in events]
    else:
        assert all(re.match(r"time=\S+Z level=(info|warning) event=\S+", line) for line in log)
        found = [line.split("event=")[1].split()[0] for line in log]
    assert sorted(found) == ["node.listening", "node.stopped", "source.down"]


def test_what_is_below_the_log_level_is_not_logged(engine: Server) -> None:
    gone = ("--engine", "http://127.0.0.1:1")
    done = run("node", "--no-nvml", "--once", "--engine", engine.url, *gone, "--log-level", "error")
    assert (done.returncode, done.stderr) == (0, "")


# Prometheus itself.


def test_promtool_finds_nothing_to_complain_about() -> None:
    promtool = program("promtool")
    with Server({"/metrics": response(VLLM_CAPTURE)}) as engine, Daemon("--engine", engine.url) as daemon:
        until(lambda: daemon.value(UP, source="engine") == 1)
        body = daemon.get()[2]
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_real_prometheus_scrapes_every_series(engine: Server, tmp_path: Path) -> None:
    with Daemon("--engine", engine.url) as daemon:
        until(lambda: daemon.value(RUNNING) == 3)
        series = len(daemon.samples())
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [static("node", f"127.0.0.1:{daemon.port}")],
        }
        with Prometheus(tmp_path, config) as prometheus:
            until(lambda: prometheus.value("up") == 1, 60)
            until(lambda: prometheus.value(RUNNING) == 3, 20)
            assert prometheus.value("scrape_samples_scraped") == series
            assert prometheus.value("scrape_samples_post_metric_relabeling") == series
        assert "level=ERROR" not in prometheus.log()
