"""The receivers in a thread of their own, with the envelopes that they put; and requests to them, as raw as needed."""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
from collections.abc import Mapping
from typing import Any, Self

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.taps.otlp_grpc import OtlpGrpc
from palegreen.evaluators.taps.sinks import Sinks
from palegreen.runtime.tally import Tally

LOCAL = "127.0.0.1:0"


def counted(tally: Tally) -> dict[str, float]:
    """What was counted, by metric and the values of its labels: `tap_dropped_total otlp too_large`."""
    found = {}
    for line in "".join(tally.readings().lines.values()).splitlines():
        name, *labels = line.partition("{")[0], *re.findall(r'="([^"]*)"', line)[4:]
        found[" ".join([name.removeprefix("palegreen_"), *labels])] = float(line.split()[-1])
    return found


class Receivers:
    """Both receivers on ports of their own choice."""

    def __init__(self, grpc_times: Mapping[str, float] | None = None, **settings: Any) -> None:
        self.envelopes: list[Envelope] = []
        self.tally = Tally(("endpoint", "instance", "namespace", "pod"))
        config = EvaluateConfig(**({"sink_address": LOCAL, "otlp_grpc_address": LOCAL} | settings))
        self.sinks = Sinks(config, self.envelopes.append, self.tally)
        self.grpc = OtlpGrpc(config, self.envelopes.append, self.tally, **(grpc_times or {}))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self.sinks.start())
        self._run(self.grpc.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.grpc.stop())
        self._run(self.sinks.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sinks.port}"

    def post(
        self, path: str, body: Any = b"", method: str = "POST", **headers: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of the answer; header names have underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.sinks.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
