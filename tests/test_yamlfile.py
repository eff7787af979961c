"""Configuration files: what is wrong is one line with file, line, key and what is allowed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from palegreen.runtime.yamlfile import MAX_BYTES, ConfigError, Document, load


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Engine(Strict):
    url: str
    kind: Literal["vllm", "sglang"] = "vllm"


class Limits(Strict):
    seconds: float = Field(1.0, gt=0, le=60)
    queue: int | None = None


class Config(Strict):
    limits: Limits = Limits()
    engines: list[Engine] = []
    labels: dict[str, str] = {}
    keys: dict[str, SecretStr] = {}
    prices: dict[str, Limits] = {}
    header: str = Field("", alias="X-Header")
    simulated: bool = False


@pytest.fixture
def refusal(tmp_path: Path):
    def refused(text: str | bytes) -> str:
        file = tmp_path / "c.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as caught:
            load(file, Config)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(tmp_path), "D")

    return refused


def test_a_good_file_is_the_model(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("limits: {seconds: 2, queue: 5}\nengines:\n- url: http://a\n  kind: sglang\nX-Header: v\n")
    config = load(file, Config)
    assert config.limits == Limits(seconds=2, queue=5)
    assert config.engines == [Engine(url="http://a", kind="sglang")]
    assert config.header == "v"


@pytest.mark.parametrize("text", ["", "# only comments\n", "---\n", "limits:\nengines:\nlabels:\n", "\ufefflimits:\n"])
def test_an_empty_file_or_section_means_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    assert load(file, Config) == Config.model_validate({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "limits:\n  secnds: 2\n",
            "D/c.yaml:2: limits.secnds: unknown key, did you mean seconds?; allowed: queue, seconds",
        ),
        (
            "\nzzz: 1\n",
            ("D/c.yaml:2: zzz: unknown key; allowed: X-Header, engines, keys, labels, limits, prices, simulated"),
        ),
        (
            "engines:\n- url: a\n- url: b\n  knd: vllm\n",
            "D/c.yaml:4: engines[1].knd: unknown key, did you mean kind?; allowed: kind, url",
        ),
        (
            "prices:\n  h100:\n    second: 1\n",
            "D/c.yaml:3: prices.h100.second: unknown key, did you mean seconds?; allowed: queue, seconds",
        ),
        (
            "limits:\n  seconds: soon\n",
            ("D/c.yaml:2: limits.seconds: got 'soon'; allowed: a valid number, unable to parse string as a number"),
        ),
        ("limits:\n  seconds: 90\n", "D/c.yaml:2: limits.seconds: got 90; allowed: less than or equal to 60"),
        ("limits:\n  seconds:\n", "D/c.yaml:2: limits.seconds: got nothing; allowed: a valid number"),
        (
            "engines:\n- url: a\n  kind: tgi\n",
            "D/c.yaml:3: engines[0].kind: got 'tgi'; allowed: 'vllm' or 'sglang'",
        ),
        ("engines:\n- kind: vllm\n", "D/c.yaml:2: engines[0].url: the key is required and missing"),
        ("engines: {}\n", "D/c.yaml:1: engines: got a mapping; allowed: a list"),
        ("limits: 3\n", "D/c.yaml:1: limits: got 3; allowed: a mapping"),
        ("labels:\n  a: 2024-01-02\n", None),
        ("keys:\n  a: 12345\n", "D/c.yaml:2: keys.a: got a value that is not shown; allowed: a valid string"),
        (
            "limits:\n  seconds: 2\n  seconds: 3\n",
            "D/c.yaml:3: limits.seconds: the key is given twice, first on line 2",
        ),
        ("- a\n", "D/c.yaml:1: the file is not a mapping; allowed: key: value lines"),
        ("just text", "D/c.yaml:1: the file is not a mapping; allowed: key: value lines"),
        ("a: 1\nb: [1\nc: 2\n", None),
        ("a: 'unclosed\n", None),
        ("a: \x07\n", None),
        ("a: 1\n---\nb: 2\n", None),
        (
            "labels: &x {a: b}\nkeys: *x\n",
            "D/c.yaml:2: not valid YAML: anchors and aliases are not supported",
        ),
        ("labels: !!python/object:os.system {a: b}\n", None),
        ("labels: {a: !!python/name:os.system x}\n", None),
        ("? [a, b]\n: c\n", "D/c.yaml:1: top level: a key is not text; allowed: plain keys"),
        ("labels:\n  a: 2026-13-45\n", None),
        (b"a: 1\nb: \xff\n", "D/c.yaml:2: is not text; allowed: UTF-8"),
        ("labels: " + "[" * 100_000, "D/c.yaml: not valid YAML: nested too deeply"),
        ("x" * (MAX_BYTES + 1), f"D/c.yaml: is too large; allowed: at most {MAX_BYTES} bytes"),
        ('"a\\nb": 1\n', None),
    ],
)
def test_a_bad_file_is_one_line_with_file_line_and_key(refusal, text: str | bytes, message: str | None) -> None:
    found = refusal(text)
    assert found.startswith("D/c.yaml")
    if message is not None:
        assert found == message


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: [1\nc: 2\n", 3), ("a: 1\n---\nb: 2\n", 2), ("a:\n\t- b\n", 2), ("a: 1\nb: \x07", 2)],
)
def test_a_syntax_error_names_its_line(refusal, text: str, line: int) -> None:
    assert refusal(text).startswith(f"D/c.yaml:{line}: not valid YAML: ")


def test_of_several_problems_the_first_is_told_and_the_others_counted(refusal) -> None:
    found = refusal("simulated: maybe\nlimits:\n  seconds: 0\nengines: 1\n")
    assert found.startswith("D/c.yaml:1: simulated: got 'maybe'; allowed: a valid boolean")
    assert found.endswith("(and 2 more)")


def test_keys_that_yaml_reads_as_numbers_or_booleans_are_names(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("labels: {123: a, on: b}\n")
    assert load(file, Config).labels == {"123": "a", "on": "b"}


def test_a_long_value_is_cut(refusal) -> None:
    assert len(refusal(f"limits: {{seconds: {'x' * 5000}}}\n")) < 250


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file or directory$"):
        load(tmp_path / "gone.yaml", Config)
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load(tmp_path, Config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.touch(mode=0)
    with pytest.raises(ConfigError, match=r"c\.yaml: cannot be read: Permission denied$"):
        load(file, Config)


def test_a_check_outside_the_model_names_the_line_too(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("limits:\n  queue: 3\nengines:\n- url: a\n")
    document = Document.read(file)
    assert str(document.error(("engines", 0, "url"), "bad")) == f"{file}:4: engines[0].url: bad"
    assert str(document.error(("limits", "seconds"), "missing")) == f"{file}:1: limits.seconds: missing"
