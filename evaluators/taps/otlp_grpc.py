"""OTLP over gRPC. Requests stay bytes: the handlers are generic, so nothing is parsed and no generated code is needed.

Source: opentelemetry-proto, `collector/{trace,logs,metrics}/v1`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope, Kind
from palegreen.evaluators.taps.sinks import BATCH
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError, parse_address

_SERVICES: dict[str, Kind | None] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "otlp-traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "otlp-logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": None,  # accepted and thrown away
}
_TAP = "otlp"
_ACCEPTED = b""  # an Export...ServiceResponse with nothing to say
_STREAMS = 4  # calls of one connection at once; more of them wait in the sender
_GRACE_SECONDS = 0.5


class OtlpGrpc:
    """Serves the collector's services on `config.otlp_grpc_address`, without TLS.

    A request of more than BATCH body limits is refused by gRPC itself (RESOURCE_EXHAUSTED), before it is seen here;
    gzip is undone by gRPC too, within the same limit. Requests are held in memory only while they are read, as many at
    once as fit into the queue's limit; one that finds no room is dropped, counted and accepted.

    Args:
        config: of the evaluator; `otlp_grpc_address` is given.
        put: takes an envelope or drops and counts it; never waits.
        tally: counts `palegreen_tap_received_total` (requests) and `palegreen_tap_dropped_total`.
        room_seconds: that a request waits for others to be read.
        read_seconds: that a sender may take to send one.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        put: Callable[[Envelope], object],
        tally: Tally,
        *,
        room_seconds: float = 2.0,
        read_seconds: float = 10.0,
    ) -> None:
        self._host, self._wanted = parse_address(config.otlp_grpc_address or "")
        self._limit = config.body_limit * BATCH
        self._put = put
        self._tally = tally
        self._room = asyncio.Semaphore(max(2, config.queue_limit // self._limit))
        self._room_seconds = room_seconds
        self._read_seconds = read_seconds
        self._server: grpc.aio.Server | None = None
        self.port = self._wanted

    async def start(self) -> None:
        """Listen and begin to answer; `port` is then the one that is listened on.

        Raises:
            palegreen.runtime.web.ListenError: the address is taken or not permitted; one line.
        """
        options = [
            ("grpc.max_receive_message_length", self._limit),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.http2.bdp_probe", 0),  # else a connection may buffer as much as a message before it is read
            ("grpc.so_reuseport", 0),  # else two servers would share a port, and neither know
        ]
        server = grpc.aio.server(options=options)
        for service, kind in _SERVICES.items():
            # No (de)serialisers: bytes. As a stream, of which one message is read: gRPC reads those of unary calls by
            # itself, all at once, before anybody can say that there is no room.
            export = grpc.stream_unary_rpc_method_handler(self._taking(kind))
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        host = f"[{self._host}]" if ":" in self._host else self._host or "[::]"
        where = f"{host}:{self._wanted}"
        try:
            bound = server.add_insecure_port(where)
        except RuntimeError:
            bound = 0
        if not bound:
            await server.stop(None)
            raise ListenError(f"cannot listen on {where}: taken, not permitted, or no address of this machine")
        await server.start()
        self._server, self.port = server, bound

    async def stop(self) -> None:
        """Finish what is under way for a moment, and give the address back."""
        if self._server is not None:
            await self._server.stop(_GRACE_SECONDS)

    def _taking(self, kind: Kind | None) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def export(_: Any, call: Any) -> bytes:
            if kind is None:
                return _ACCEPTED
            self._tally.count("palegreen_tap_received_total", _TAP)
            try:
                await asyncio.wait_for(self._room.acquire(), self._room_seconds)
            except TimeoutError:
                self._tally.count("palegreen_tap_dropped_total", _TAP, "queue_full")
                return _ACCEPTED
            try:
                body = await asyncio.wait_for(call.read(), self._read_seconds)
            except TimeoutError:
                await call.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no whole request in {self._read_seconds:g} s")
            finally:
                self._room.release()
            if isinstance(body, bytes):  # else the call ended without a message
                self._put(Envelope(self._meta(kind), [body]))
            return _ACCEPTED

        return export

    def _meta(self, kind: Kind) -> dict[str, object]:
        now = time.time()
        return {"tap": _TAP, "kind": kind, "time": now, "sampled": "rate", "content_type": "application/x-protobuf"}
