"""Finding Prometheus and Alertmanager, and fetching them where they are not installed."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from palegreen.demo import tools


def _program(folder: Path, name: str, script: str = "exit 0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def _found(name: str) -> Path:
    tool = tools.find(name)
    if tool.path is None:
        pytest.skip(tool.reason)
    return tool.path


def test_a_tool_on_the_path_wins_over_a_fetched_one(tmp_path: Path) -> None:
    _program(tmp_path / "tools/debian/usr/bin", "promtool")
    on_path = _program(tmp_path / "bin", "promtool")
    found = tools.find("promtool", directory=tmp_path / "tools", search_path=str(tmp_path / "bin"))
    assert found.path == on_path


def test_alertmanager_is_found_under_the_name_that_debian_gives_it(tmp_path: Path) -> None:
    installed = _program(tmp_path / "bin", "prometheus-alertmanager")
    assert tools.find("alertmanager", search_path=str(tmp_path / "bin")).path == installed


def test_a_tool_that_was_fetched_before_is_used_without_apt(tmp_path: Path) -> None:
    fetched = _program(tmp_path / "tools/debian/usr/bin", "amtool")
    found = tools.find("amtool", directory=tmp_path / "tools", search_path=str(tmp_path / "empty"))
    assert found.path == fetched


def test_without_apt_the_reason_says_so_and_nothing_is_written(tmp_path: Path) -> None:
    found = tools.find("promtool", directory=tmp_path / "tools", search_path=str(tmp_path / "empty"))
    assert found.path is None
    assert found.reason == "not on PATH, and without apt-get and dpkg it cannot be fetched"
    assert not (tmp_path / "tools").exists()


def test_apt_sources_without_debian_give_a_reason(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    for name in ("apt-get", "dpkg"):
        _program(programs, name)
    (tmp_path / "sources.list").write_text("deb http://archive.ubuntu.com/ubuntu noble main\n")
    found = tools.find("promtool", directory=tmp_path / "t", search_path=str(programs), apt_etc=tmp_path)
    assert found.reason == "not on PATH, and not fetched: the system's apt sources name no Debian archive"


def test_a_failed_fetch_is_remembered_so_that_the_next_test_does_not_wait_for_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    _program(tmp_path / "bin", "apt-get", f"echo x >> {calls}; echo 'E: Temporary failure resolving'; exit 100")
    _program(tmp_path / "bin", "dpkg")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian stable main\n")

    def find(name: str) -> tools.Tool:
        path = str(tmp_path / "bin")
        return tools.find(name, directory=tmp_path / "t", search_path=path, apt_etc=tmp_path)

    first, second = find("promtool"), find("amtool")
    assert first.reason == (
        "not on PATH, and not fetched: Debian sid: apt-get exited with 100: E: Temporary failure resolving"
    )
    assert second.reason.startswith(first.reason)
    assert "tries again" in second.reason
    assert calls.read_text().count("x") == 1, "no network for one release is no network for the others"
    memory = tmp_path / "t" / tools.FAILURE
    memory.write_text(json.dumps({"time": time.time() - 3600, "reason": "old"}))
    assert "old" not in find("amtool").reason
    assert not list((tmp_path / "t").glob("fetch-*")), "a failed fetch leaves nothing behind"


@pytest.mark.parametrize(
    ("text", "uri", "signed_by"),
    [
        ("deb http://a.example/debian bookworm main contrib # note\n", "http://a.example/debian", ""),
        (
            "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian sid main",
            "http://a.example/debian",
            "/k.gpg",
        ),
        (
            "deb mirror+file:/etc/apt/mirrors/debian.list trixie main",
            "mirror+file:/etc/apt/mirrors/debian.list",
            "",
        ),
    ],
)
def test_one_line_sources_name_the_mirror(tmp_path: Path, text: str, uri: str, signed_by: str) -> None:
    (tmp_path / "sources.list").write_text(text)
    assert tools.debian_mirror(tmp_path) == tools.Mirror(uri, signed_by)


def test_deb822_sources_name_the_mirror_and_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(
        """Types: deb
URIs: http://a.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

# A comment inside a stanza
Types: deb deb-src
URIs: http://a.example/debian
# another
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
    )
    mirror = tools.debian_mirror(tmp_path)
    assert mirror == tools.Mirror("http://a.example/debian", "/usr/share/keyrings/debian-archive-keyring.gpg")


def test_a_key_written_into_the_source_is_kept_with_its_lines(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    key = " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----"
    (folder / "x.sources").write_text(
        f"Types: deb\nURIs: http://a.example/debian\nSuites: sid\nComponents: main\nSigned-By:\n{key}\n"
    )
    mirror = tools.debian_mirror(tmp_path)
    assert mirror is not None
    assert mirror.signed_by.splitlines()[1:] == key.splitlines()[1:]


@pytest.mark.parametrize(
    "text",
    [
        "deb http://security.example/debian-security bookworm-security main",
        "deb https://download.example/linux/debian bookworm stable",
        "deb cdrom:[Debian]/ bookworm main",
        "deb-src http://a.example/debian bookworm main",
        "# deb http://a.example/debian bookworm main",
    ],
)
def test_what_is_not_debians_main_archive_is_not_taken_for_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "sources.list").write_text(text + "\n")
    assert tools.debian_mirror(tmp_path) is None


def test_a_vendor_that_uses_debians_suite_names_does_not_stand_in_for_debian(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb https://apt.vendor.example bookworm main\ndeb http://a.example/debian/ bookworm main\n"
    )
    assert tools.debian_mirror(tmp_path) == tools.Mirror("http://a.example/debian/")


def test_the_command_names_what_it_knows_when_asked_for_something_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tools.main(["grafana"]) == 2
    assert "there are: prometheus, promtool, alertmanager, amtool" in capsys.readouterr().err


@pytest.mark.parametrize("name", tools.TOOLS)
def test_each_tool_that_is_found_runs(name: str) -> None:
    done = subprocess.run([_found(name), "--version"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert f"{name}, version" in (done.stdout + done.stderr).decode()


def test_two_processes_that_look_at_once_find_the_same(tmp_path: Path) -> None:
    expected = _found("promtool")
    command = [sys.executable, "-m", "palegreen.demo.tools", "promtool"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=400)[0].split("\t")[1].strip() == str(expected)


def test_alertmanager_becomes_ready_although_nothing_is_installed_under_usr_share(tmp_path: Path) -> None:
    alertmanager = _found("alertmanager")
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    log = tmp_path / "log"
    command = [str(alertmanager), f"--config.file={config}", f"--storage.path={tmp_path / 'data'}"]
    command += ["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 30
            while "Listening on" not in log.read_text() and process.poll() is None:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            assert process.poll() is None, log.read_text()
            address = log.read_text().split("Listening on")[1].split("address=")[1].split()[0]
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=10) as response:
                assert response.status == 200
        finally:
            process.terminate()
