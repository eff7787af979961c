"""`palegreen node` as a process of its own."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from support.waiting import until

PROGRAM = str(Path(sys.executable).with_name("palegreen"))


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without settings of Palegreen but those given."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PALEGREEN_")} | dict(extra or {})


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [PROGRAM, *arguments], env=environment(env), capture_output=True, text=True, timeout=60, check=False
    )


NODE = ("node", "--no-nvml", "--no-network", "--no-kubelet")


class Daemon:
    """A daemon on a port of its own choice: the node's without sources of the node itself, or another `command`.

    `log` is what it has written to standard error.
    """

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        address: str = "127.0.0.1:0",
        command: Sequence[str] = NODE,
    ) -> None:
        command = [PROGRAM, *command, *arguments]
        if address:
            command = [*command, "--listen-address", address]
        self.log: list[str] = []
        self._process = subprocess.Popen(
            command, env=environment(env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reading = Thread(target=self._read, daemon=True)
        self._reading.start()
        try:
            line = until(lambda: next((line for line in self.log if ".listening" in line), ""), 30)
        except AssertionError:
            self.kill()
            raise AssertionError(f"it does not listen: {self.log}") from None
        self.port = int(re.findall(r"127\.0\.0\.1:(\d+)", line)[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Exit status; raises TimeoutExpired."""
        status = self._process.wait(seconds)
        self._reading.join(5)
        return status

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        self._reading.join(5)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def get(
        self, path: str = "/metrics", headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def samples(self) -> list[Sample]:
        """What a scrape gives now."""
        status, _, body = self.get()
        assert status == 200
        return [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Value of one sample of a scrape, None if it is not there."""
        found = [s.value for s in self.samples() if s.name == name and labels.items() <= s.labels.items()]
        return found[0] if found else None

    def events(self, event: str) -> list[str]:
        """Lines of the log of one event, logfmt or JSON."""
        return [line for line in self.log if f"event={event}" in line or f'"event": "{event}"' in line]

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.rstrip("\n"))
