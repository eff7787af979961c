"""Names of containers without asking the kubelet: its log folders are named after them, and need no right to read.

`/var/log/containers/<pod>_<namespace>_<container>-<id>.log` are symbolic links the kubelet makes for each container;
`/var/log/pods/<namespace>_<pod>_<uid>/<container>/` hold the logs themselves.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import structlog

log = structlog.get_logger()

_AGAIN = 5.0  # seconds between two looks, made only when somebody unknown is asked for
_MOST = 10_000  # entries of a folder that are looked at
_NAME = r"[a-z0-9][a-z0-9.-]{0,252}"
_LINK = re.compile(rf"({_NAME})_({_NAME})_({_NAME})-([0-9a-f]{{64}})\.log")
_POD = re.compile(rf"({_NAME})_({_NAME})_([0-9a-f-]{{32,36}})")


class Name(NamedTuple):
    """What Kubernetes calls a container; `container` is "" where only its pod is known."""

    namespace: str
    pod: str
    container: str


class Names:
    """Names as the folders under `logs` (`/var/log`) have them; `clock` counts seconds."""

    def __init__(self, logs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._logs = logs
        self._clock = clock
        self._read_at: float | None = None
        self._containers: dict[str, Name] = {}
        self._pods: dict[str, str] = {}
        self._said = ""
        self.trouble = ""

    def of(self, container: str, pod: str) -> Name | None:
        """The name of a container, by its id or else by its pod's UID; None where the folders have neither."""
        if container not in self._containers and self._due():
            self._read()
        name = self._containers.get(container) or self._pod(pod)
        if name is None and pod and self.trouble != self._said:
            self._said = self.trouble
            log.warning("attribution.unnamed", cause=self.trouble, effect="containers have neither pod nor name")
        return name

    def _due(self) -> bool:
        return self._read_at is None or self._clock() - self._read_at >= _AGAIN

    def _read(self) -> None:
        self._read_at = self._clock()
        self.trouble = ""
        links = (_LINK.fullmatch(entry) for entry in self._list("containers"))
        self._containers = {link[4]: Name(link[2], link[1], link[3]) for link in links if link}
        folders = ((entry, _POD.fullmatch(entry)) for entry in self._list("pods"))
        self._pods = {folder[3]: entry for entry, folder in folders if folder}

    def _pod(self, uid: str) -> Name | None:
        folder = self._pods.get(uid)
        if folder is None:
            return None
        namespace, pod, _ = folder.split("_")
        containers = self._list(f"pods/{folder}")
        return Name(namespace, pod, containers[0] if len(containers) == 1 else "")

    def _list(self, folder: str) -> list[str]:
        path = self._logs / folder
        try:
            with os.scandir(path) as entries:
                return [entry.name for entry in islice(entries, _MOST)]
        except OSError as failure:
            self.trouble = self.trouble or f"{path}: {failure.strerror}"
            return []
