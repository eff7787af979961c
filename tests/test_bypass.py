"""The load balancers of docs/evaluator.md send traffic through the proxy, and past it when it is gone."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chatting import PATH, Chat, Evaluator, answer
from support.waiting import until

PAGE = (Path(__file__).parent.parent / "docs" / "evaluator.md").read_text(encoding="utf-8")
PROGRAMS = {"nginx": "/usr/sbin/nginx", "haproxy": "/usr/sbin/haproxy"}


@pytest.fixture(params=["nginx", "haproxy"])
def balancer(request: pytest.FixtureRequest) -> str:
    program = shutil.which(request.param) or PROGRAMS[request.param]
    if not Path(program).exists():
        pytest.skip(f"{request.param} is not installed")
    return program


def documented(name: str) -> str:
    return re.search(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)[1]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configured(name: str, folder: Path, ports: dict[str, int]) -> list[str]:
    text = documented(name)
    for documented_port, port in ports.items():
        text = re.sub(rf"\b{documented_port}\b", str(port), text)
    file = folder / f"{name}.conf"
    if name == "nginx":
        temporary = "".join(
            f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file.write_text(
            f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{temporary}{text}}}\n"
        )
        return ["-c", str(file), "-e", "stderr", "-p", str(folder)]
    file.write_text(text.replace("bind :", "bind 127.0.0.1:"))
    return ["-f", str(file), "-db"]


@pytest.fixture
def running(balancer: str, tmp_path: Path) -> Iterator[tuple[int, Evaluator]]:
    with Chat() as chat, Evaluator(chat.url) as evaluator:
        evaluator.child("scorer")
        port = free()
        ports = {"8080": evaluator.proxy, "8000": int(chat.url.rpartition(":")[2]), "8081": port}
        command = [balancer, *configured(Path(balancer).name, tmp_path, ports)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: asked(port, "first") == (200, answer("first")), 20)
            yield port, evaluator
        finally:
            process.terminate()
            process.wait(10)


def accepting(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def asked(port: int, question: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        body = json.dumps({"model": "small", "messages": [{"role": "user", "content": question}]})
        connection.request("POST", PATH, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return None
    finally:
        connection.close()


def test_traffic_goes_through_the_proxy_and_past_it_when_it_is_gone(running: tuple[int, Evaluator]) -> None:
    port, evaluator = running
    before = evaluator.total("tap_received_total", tap="proxy")
    assert asked(port, "through") == (200, answer("through"))
    until(lambda: evaluator.total("tap_received_total", tap="proxy") > before, 20)
    os.kill(evaluator.pid, signal.SIGKILL)
    until(lambda: not accepting(evaluator.proxy), 20)
    assert [asked(port, f"later {n}") for n in range(10)] == [(200, answer(f"later {n}")) for n in range(10)]
