"""The kubelet's pod-resources socket: one gRPC channel that is kept, one call under a deadline.

gRPC is imported when the socket is first read, so that a node without a kubelet does not pay for it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from palegreen.exporter.kubelet.wire import LIST
from palegreen.exporter.source import SourceError

LIMIT = 64 << 20  # bytes of one answer; gRPC's own 4 MiB are too few for nodes with many devices
_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000))


class KubeletError(SourceError):
    """The kubelet cannot be asked; `detail` says what is wrong and `fix` what to do."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(f"{detail}: {fix}")
        self.detail = detail
        self.fix = fix


class Client:
    """Asks the kubelet behind `path`; an answer may take `deadline` seconds."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._path = path
        self._deadline = deadline
        self._channel: Any = None

    def list(self) -> bytes:
        """A serialized ListPodResourcesResponse. Raises KubeletError."""
        grpc = _grpc()
        if self._channel is None:
            options = (("grpc.max_receive_message_length", LIMIT), ("grpc.enable_http_proxy", 0), *_RECONNECT)
            self._channel = grpc.insecure_channel(f"unix:{self._path}", options=options)
        try:
            # bytes in and out: parsing within gRPC would log a traceback for what is no answer
            return bytes(self._channel.unary_unary(LIST)(b"", timeout=self._deadline))
        except grpc.RpcError as failure:
            raise self._explained(failure, grpc.StatusCode) from None

    def close(self) -> None:
        """Let go of the channel; a call under way ends."""
        if self._channel is not None:
            self._channel.close()

    def _explained(self, failure: Any, status: Any) -> KubeletError:
        code, details = failure.code(), " ".join(str(failure.details()).split())[:300]
        if code is status.DEADLINE_EXCEEDED:
            return KubeletError(
                f"the kubelet does not answer within {self._deadline:g} s", "look at the kubelet's own log"
            )
        if code is status.UNIMPLEMENTED:
            return KubeletError(f"{self._path} has no pod-resources API v1", "Kubernetes 1.20 or newer is needed")
        if code is status.RESOURCE_EXHAUSTED:
            return KubeletError(f"the kubelet's answer is refused: {details}", f"the limit is {LIMIT >> 20} MiB")
        return self._refused() or KubeletError(
            f"{self._path} does not answer as a kubelet: {code.name} {details}", "is it the pod-resources socket?"
        )

    def _refused(self) -> KubeletError | None:
        """Why the socket cannot be connected to; gRPC says it in words that change."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(self._deadline)
                probe.connect(str(self._path))
        except FileNotFoundError:
            return KubeletError(
                f"{self._path} is not there", "is the kubelet running, and its folder (not the socket) mounted?"
            )
        except PermissionError:
            return KubeletError(
                f"no permission for {self._path}", "run as root (runAsUser: 0) or give its owner's group"
            )
        except ConnectionRefusedError:
            return KubeletError(f"nothing listens on {self._path}", "is the kubelet running?")
        except OSError as failure:
            return KubeletError(f"{self._path}: {failure.strerror or failure}", "is it the pod-resources socket?")
        return None


def _grpc() -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else the C core writes lines of its own among ours
    try:
        import google.protobuf  # noqa: F401 - wanted by `wire`; its lack is said here
        import grpc
    except ImportError as failure:
        raise KubeletError(
            f"grpcio and protobuf are needed for the kubelet's socket ({failure})", "pip install 'palegreen[kubelet]'"
        ) from None
    return grpc
