"""A kubelet's pod-resources socket: a real gRPC server, whose messages are encoded here field by field.

Field numbers are those of podresources/v1/api.proto, written a second time on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message: length-delimited, or a varint."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def devices(resource: str, *ids: str) -> bytes:
    """ContainerDevices, with the NUMA node the kubelet adds."""
    topology = field(1, field(1, 1))
    return field(2, field(1, resource) + b"".join(field(2, name) for name in ids) + field(3, topology))


def claim(name: str, device: str, *cdi: str, driver: str = "gpu.nvidia.com", namespace: str = "default") -> bytes:
    """DynamicResource with one device."""
    resource = b"".join(field(1, field(1, qualified)) for qualified in cdi)
    resource += field(2, driver) + field(3, "node-1") + field(4, device)
    return field(5, field(2, name) + field(3, namespace) + field(4, resource))


def pod(name: str, *held: bytes, container: str = "main", namespace: str = "default") -> bytes:
    """PodResources with one container that has CPUs and memory besides."""
    cpus, memory = field(3, b"\x02\x03"), field(4, field(1, "memory") + field(2, 1 << 30))
    inner = field(1, container) + b"".join(held) + cpus + memory
    return field(1, field(1, name) + field(2, namespace) + field(3, inner))


class Kubelet:
    """Serves `answer` (ListPodResourcesResponse) on a socket and counts the calls; `before` may hold one up."""

    def __init__(
        self,
        path: Path,
        *pods: bytes,
        before: Callable[[], object] = bool,
        service: str = "v1.PodResourcesLister",
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.answer = b"".join(pods)
        self.calls = 0
        self._before = before
        self._server = grpc.server(ThreadPoolExecutor(2), options=options)
        handler = grpc.unary_unary_rpc_method_handler(self._list)  # bytes in and out
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"List": handler}),))
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _list(self, _request: bytes, _context: object) -> bytes:
        self.calls += 1
        self._before()
        return self.answer
