"""Configuration of the node daemon: units, refusals, identities."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from palegreen.exporter.config import EngineConfig, NodeConfig, load
from palegreen.runtime.identity import instance_id
from palegreen.runtime.quantity import seconds, size
from palegreen.runtime.yamlfile import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "palegreen.yaml"


def refusal(file: Path, text: str) -> str:
    """Why a file is refused: what follows its name, in one line."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    message = str(refused.value)
    assert message.startswith(f"{file}:")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{file}:")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (15, 15.0),
        (0.5, 0.5),
        ("15", 15.0),
        ("0.25", 0.25),
        ("500ms", 0.5),
        ("15s", 15.0),
        ("1.5m", 90.0),
        ("1m30s", 90.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        (" 3s ", 3.0),
    ],
)
def test_a_duration_is_seconds_or_a_number_with_units(text: object, number: float) -> None:
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["", "s", "15 s", "-1s", "-1", "1w", "1s!", "s1", "1e3", True, None, [1], "1S"])
def test_what_is_no_duration_is_refused_with_what_is_allowed(text: object) -> None:
    with pytest.raises(ValueError, match=r"got .*; allowed: a number of seconds, or one with a unit such as 500ms"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("1B", 1),
        ("512KiB", 512 << 10),
        ("16MiB", 16 << 20),
        ("16 mib", 16 << 20),
        ("1GiB", 1 << 30),
        ("200kB", 200_000),
        ("200MB", 200_000_000),
        ("2GB", 2_000_000_000),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: object, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "MiB", "1.5MiB", "-1", "1TB", 1.5, True, None, "16 MiB of it"])
def test_what_is_no_size_is_refused_with_what_is_allowed(text: object) -> None:
    with pytest.raises(ValueError, match=r"got .*; allowed: a number of bytes, or one with a unit such as 512KiB"):
        size(text)


def test_without_anything_the_defaults_hold() -> None:
    assert load(None, {}) == NodeConfig()
    assert NodeConfig().listen_address == "0.0.0.0:9450"


def test_a_file_gives_every_key_and_units_are_converted(file: Path) -> None:
    file.write_text(
        "listen_address: '[::1]:9450'\nengine_interval: 500ms\nengine_body_limit: 1MiB\nnvml: no\n"
        "engines:\n- {url: 'https://gpu1:8000/metrics', endpoint: chat, interval: 2m, model: m}\n"
    )
    config = load(file, {})
    assert (config.listen_address, config.engine_interval, config.engine_body_limit) == ("[::1]:9450", 0.5, 1 << 20)
    assert config.nvml is False
    assert (config.engines[0].endpoint, config.engines[0].interval, config.engines[0].model) == ("chat", 120.0, "m")


def test_an_empty_file_and_an_empty_list_of_engines_are_the_defaults(file: Path) -> None:
    file.write_text("# nothing yet\nengines:\n#- url: http://a:1\n")
    assert load(file, {}) == NodeConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine_intervall: 5s\n", "1: engine_intervall: unknown key, did you mean engine_interval?; allowed: "),
        ("engines: [{url: 'http://a:1', podd: x}]\n", "1: engines[0].podd: unknown key, did you mean pod?; allowed: "),
        ("something_else: 5s\n", "1: something_else: unknown key; allowed: "),
        ("engine_interval: 0\n", "1: engine_interval: got 0; allowed: greater than 0"),
        ("engine_interval: -1\n", "1: engine_interval: got -1; allowed: greater than 0"),
        ("engine_interval: .inf\n", "1: engine_interval: got inf; allowed: less than or equal to 315360000"),
        ("engine_interval: .nan\n", "1: engine_interval: got nan; allowed: "),
        ("engine_timeout: .inf\n", "1: engine_timeout: got inf; allowed: less than or equal to 315360000"),
        ("engine_interval: yes\n", "1: engine_interval: got 'True'; allowed: a number of seconds"),
        ("engine_interval:\n", "1: engine_interval: got 'None'; allowed: a number of seconds"),
        ("engine_body_limit: 0\n", "1: engine_body_limit: got 0; allowed: greater than 0"),
        ("engine_body_limit: big\n", "1: engine_body_limit: got 'big'; allowed: a number of bytes"),
        ("\nlisten_address: nowhere\n", "2: listen_address: 'nowhere' is not an address; allowed: HOST:PORT"),
        ("listen_address: a:99999\n", "1: listen_address: 'a:99999' is not an address; allowed: HOST:PORT"),
        ("log_format: xml\n", "1: log_format: got 'xml'; allowed: 'logfmt' or 'json'"),
        ("engines: http://a:1\n", "1: engines: got 'http://a:1'; allowed: a list"),
        ("engines:\n- http://a:1\n", "2: engines[0]: got 'http://a:1'; allowed: a mapping"),
        ("engines:\n- url: http://a:1\n  interval: 0\n", "3: engines[0].interval: got 0; allowed: greater than 0"),
    ],
)
def test_a_bad_value_is_refused_with_line_key_and_what_is_allowed(file: Path, text: str, said: str) -> None:
    assert refusal(file, text).startswith(said)


@pytest.mark.parametrize(
    "url",
    [
        "gpu1:8000",
        "ftp://gpu1",
        "http://",
        "http://:8000",
        "http://gpu1:99999",
        "http://gpu1:0",
        "http://[::1",
        "http://user:secret@gpu1:8000",
        "http://gpu1:8000/#part",
        "",
    ],
)
def test_an_engine_needs_an_http_address_with_a_host_and_without_a_user(file: Path, url: str) -> None:
    assert "; allowed: http://HOST:PORT or https://HOST:PORT" in refusal(file, f"engines: [{{url: '{url}'}}]\n")


@pytest.mark.parametrize(
    "url",
    ["http://gpu1", "https://gpu1:8443/prometheus/metrics?format=text", "http://[::1]:8000", "http://10.0.0.1:80/"],
)
def test_an_engine_may_be_given_with_or_without_port_and_path(url: str) -> None:
    assert EngineConfig(url=url).url == url


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("url", "namespace", "pod", "identity"),
    [
        ("http://gpu1:8000", "", "", "gpu1:8000"),
        ("http://gpu1:8000/metrics", "ns", "", "gpu1:8000"),
        ("http://gpu1", "", "", "gpu1:80"),
        ("https://gpu1", "", "", "gpu1:443"),
        ("http://GPU1:1", "", "", "gpu1:1"),
        ("http://10.0.0.7:8000", "inference", "chat-0", "inference/chat-0"),
        ("http://127.0.0.1:8000", "", "", f"{HERE}:8000"),
        ("http://127.1.2.3:8000", "", "", f"{HERE}:8000"),
        ("http://localhost:8000", "", "", f"{HERE}:8000"),
        ("http://[::1]:8000", "", "", f"{HERE}:8000"),
        ("http://0.0.0.0:8000", "", "", f"{HERE}:8000"),
    ],
)
def test_instance_id_is_namespace_and_pod_or_host_and_serving_port(
    url: str, namespace: str, pod: str, identity: str
) -> None:
    assert instance_id(url, namespace, pod) == identity
    assert EngineConfig(url=url, namespace=namespace, pod=pod).identity() == identity


def test_a_configured_instance_id_wins() -> None:
    assert EngineConfig(url="http://a:1", pod="p", namespace="n", instance_id="mine").identity() == "mine"


def test_two_engines_of_one_identity_are_refused_at_the_second_ones_line(file: Path) -> None:
    text = "engines:\n- url: http://localhost:8000\n- url: http://127.0.0.1:8000/metrics\n"
    said = refusal(file, text)
    assert said.startswith(f"3: engines[1].url: instance_id '{HERE}:8000' is that of http://localhost:8000 too")
    assert "allowed: give one an instance_id of its own" in said
    file.write_text(text + "  instance_id: other\n")
    assert [engine.identity() for engine in load(file, {}).engines] == [f"{HERE}:8000", "other"]


def test_a_flags_engine_of_the_same_identity_as_the_files_is_refused_with_the_flag(file: Path) -> None:
    file.write_text("engines: [{url: 'http://a:1'}]\n")
    with pytest.raises(ConfigError, match=r"--engine http://a:1/metrics: instance_id 'a:1' is that of http://a:1 too"):
        load(file, {"engines": ("http://a:1/metrics",)})
    assert len(load(file, {"engines": ("http://a:2",)}).engines) == 2


def test_overrides_win_over_the_file_and_are_named_by_their_origin_when_bad(file: Path) -> None:
    file.write_text("engine_interval: 5s\nnvml_interval: 2s\n")
    config = load(file, {"engine_interval": "7"})
    assert (config.engine_interval, config.nvml_interval) == (7.0, 2.0)
    with pytest.raises(ConfigError, match=r"^--engine-interval: got 'x'; allowed: "):
        load(file, {"engine_interval": "x"}, {"engine_interval": "--engine-interval"})


def test_an_answer_may_take_an_interval_but_two_to_ten_seconds_unless_configured() -> None:
    def taken(config: NodeConfig) -> float:
        return config.timeout(config.engines[0])

    engine = {"url": "http://a:1"}
    assert taken(NodeConfig(engines=[engine])) == 5
    assert taken(NodeConfig(engines=[engine], engine_interval=60)) == 10
    assert taken(NodeConfig(engines=[{**engine, "interval": 1}])) == 2
    assert taken(NodeConfig(engines=[engine], engine_timeout=3)) == 3
    assert taken(NodeConfig(engines=[{**engine, "timeout": 0.5}], engine_timeout=3)) == 0.5
