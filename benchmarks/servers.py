"""What the benchmarks need around their targets, each a process of its own.

    servers.py engines PAGE...   one port per PAGE (FILE:/path), counters grow at each request; prints the ports
    servers.py floor FILE        answers every request with the bytes of FILE, and does nothing else; prints the port
    servers.py openlit PRICING   openlit's GPU collector behind a Prometheus endpoint; prints the port
    servers.py samples FILE      writes every utilisation sample of every GPU to FILE: GPU, microseconds, percent

Imports are inside the functions: the process that is measured loads what it needs and nothing else.
"""

import sys


def engines(pages: list[str]) -> None:
    """Serve recorded metrics pages of engines under load: every counter and histogram is larger at each request."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from itertools import count
    from pathlib import Path
    from threading import Thread

    def split(text: str) -> list[tuple[str, float | None]]:
        """Lines, with the number taken off those that count."""
        counting: set[str] = set()
        lines: list[tuple[str, float | None]] = []
        for line in text.splitlines():
            if line.startswith("# TYPE"):
                _, _, name, kind = line.split()[:4]
                if kind in ("counter", "histogram"):
                    counting.add(name)
            head, _, last = line.rpartition(" ")
            name = head.partition("{")[0]
            families = {name, *(name.removesuffix(part) for part in ("_total", "_bucket", "_sum", "_count"))}
            moves = not line.startswith("#") and not name.endswith("_created") and counting & families
            lines.append((head, float(last)) if moves else (line, None))
        return lines

    def server(page: str) -> ThreadingHTTPServer:
        file, _, path = page.rpartition(":")
        lines, turn = split(Path(file).read_text()), count()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path != path:
                    return self.send_error(404)
                scale = 1 + next(turn) / 1000
                body = "".join(
                    f"{text}\n" if value is None else f"{text} {value * scale!r}\n" for text, value in lines
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return None

            def log_message(self, *_: object) -> None:
                pass

        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    servers = [server(page) for page in pages]
    print(*(each.server_address[1] for each in servers), flush=True)
    threads = [Thread(target=each.serve_forever) for each in servers]
    for thread in threads:
        thread.start()


def floor(file: str) -> None:
    """Answer with fixed bytes from one thread: what the client, the kernel and the machine take by themselves."""
    import asyncio
    from pathlib import Path

    body = Path(file).read_bytes()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    class Fixed(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"\r\n\r\n"):
                self._transport.write(answer)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())


def openlit(pricing: str) -> None:
    """openlit reuses a MeterProvider it finds; one with OpenTelemetry's Prometheus reader can be scraped.

    Its GPU gauges are observed when they are read, so a scrape calls the driver. Every instrumentor is off and
    nothing is sent anywhere, so that only the GPU collector is measured.
    """
    import os
    import time

    os.environ |= {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    import openlit as sdk
    from openlit._instrumentors import MODULE_NAME_MAP
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import start_http_server

    metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
    sdk.init(
        application_name="benchmark",
        collect_gpu_stats=True,
        disable_events=True,
        disabled_instrumentors=list(MODULE_NAME_MAP),
        pricing_json=pricing,
    )
    server, _ = start_http_server(0, addr="127.0.0.1")
    print(server.server_port, flush=True)
    while True:
        time.sleep(3600)


def samples(file: str) -> None:
    """Record the driver's own samples (nvmlDeviceGetSamples) as they come, by NVIDIA's binding and nothing else."""
    import time
    from pathlib import Path

    import pynvml as nvml

    nvml.nvmlInit()
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    last = dict.fromkeys(range(len(handles)), 0)
    with Path(file).open("w") as out:
        while True:
            for gpu, handle in enumerate(handles):
                try:
                    _, found = nvml.nvmlDeviceGetSamples(handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, last[gpu])
                except nvml.NVMLError_NotFound:
                    continue
                out.writelines(f"{gpu} {sample.timeStamp} {sample.sampleValue.uiVal}\n" for sample in found)
                last[gpu] = found[-1].timeStamp
            out.flush()
            time.sleep(0.5)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "engines":
        engines(arguments)
    else:
        {"floor": floor, "openlit": openlit, "samples": samples}[what](arguments[0])
