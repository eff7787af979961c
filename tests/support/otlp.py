"""A receiver of OTLP, over gRPC and over HTTP, that keeps what it got."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc


class Received:
    """Requests in the order they came, and the headers of each by lower-case name."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []
        self.logs: list[Any] = []
        self.headers: list[dict[str, str]] = []

    def metric(self, name: str) -> Any:
        """The metric of that name in the latest request."""
        found = [
            metric
            for resource in self.metrics[-1].resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        assert len(found) == 1, found
        return found[0]

    def records(self) -> list[Any]:
        """Every log record of every request."""
        return [
            record
            for request in self.logs
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


def attributes(of: Any) -> dict[str, Any]:
    """Attributes of a point, a record or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


class GrpcReceiver(Received):
    protocol = "grpc"

    def __enter__(self) -> Self:
        receiver = self

        class Metrics(metrics_grpc.MetricsServiceServicer):  # type: ignore[misc]
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
                receiver.headers.append(dict(context.invocation_metadata()))
                receiver.metrics.append(request)
                return metrics.ExportMetricsServiceResponse()

        class Logs(logs_grpc.LogsServiceServicer):  # type: ignore[misc]
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
                receiver.headers.append(dict(context.invocation_metadata()))
                receiver.logs.append(request)
                return logs.ExportLogsServiceResponse()

        self._server = grpc.server(ThreadPoolExecutor(2))
        metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), self._server)
        logs_grpc.add_LogsServiceServicer_to_server(Logs(), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(5)


class HttpReceiver(Received):
    protocol = "http/protobuf"

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                if self.path == "/v1/metrics":
                    receiver.metrics.append(metrics.ExportMetricsServiceRequest.FromString(body))
                    answer = metrics.ExportMetricsServiceResponse().SerializeToString()
                else:
                    assert self.path == "/v1/logs"
                    receiver.logs.append(logs.ExportLogsServiceRequest.FromString(body))
                    answer = logs.ExportLogsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
