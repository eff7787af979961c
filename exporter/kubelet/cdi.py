"""CDI specifications: which device nodes a container gets under a CDI name.

The NVIDIA driver for dynamic resource allocation writes them to /var/run/cdi. For a MIG device made on demand they
are the only thing on the node that says which one a claim has got: its UUID is in neither the claim nor the slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import yaml

log = structlog.get_logger()

FOLDER = Path("/var/run/cdi")
_VENDOR = "nvidia.com"
_LARGEST = 4 << 20  # bytes
_MOST_FILES = 1024

Stamp = tuple[int, int, int]


class Specs:
    """The specifications in a folder; a file is read again when it has changed."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[Stamp, Mapping[str, tuple[str, ...]]]] = {}

    def nodes(self) -> dict[str, tuple[str, ...]]:
        """Paths of device nodes by CDI name, such as `k8s.gpu.nvidia.com/claim=...`; empty without specifications."""
        found: dict[str, tuple[str, ...]] = {}
        now: dict[Path, tuple[Stamp, Mapping[str, tuple[str, ...]]]] = {}
        for path in self._files():
            try:
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                known = self._read.get(path)
                if known is None or known[0] != stamp:
                    known = stamp, _devices(path) if status.st_size <= _LARGEST else {}
            except FileNotFoundError:  # a claim has ended
                continue
            except (OSError, ValueError, yaml.YAMLError) as failure:
                log.warning("kubelet.odd_cdi_spec", file=str(path), cause=" ".join(str(failure).split())[:200])
                known = stamp, {}
            now[path] = known
            found.update(known[1])
        self._read = now
        return found

    def _files(self) -> list[Path]:
        try:
            files = sorted(path for path in self._folder.iterdir() if path.suffix in (".yaml", ".json"))
        except OSError:  # not mounted: devices are then looked for by their names alone
            return []
        return [path for path in files if _VENDOR in path.name][:_MOST_FILES]


def _devices(path: Path) -> dict[str, tuple[str, ...]]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a specification of eight GPUs is long
    spec = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - both are safe loaders
    if not isinstance(spec, dict) or not isinstance(spec.get("devices"), list):
        raise ValueError("it has no devices")
    return {
        f"{spec.get('kind')}={device.get('name')}": tuple(
            str(node["path"]) for node in _nodes(device) if isinstance(node, dict) and "path" in node
        )
        for device in spec["devices"]
        if isinstance(device, dict)
    }


def _nodes(device: dict[str, Any]) -> list[Any]:
    edits = device.get("containerEdits")
    nodes = edits.get("deviceNodes") if isinstance(edits, dict) else None
    return nodes if isinstance(nodes, list) else []
