"""From the names the kubelet knows a device by to the labels of a GPU. Nothing is guessed: what cannot be told is None.

| name | from | read as |
|---|---|---|
| `GPU-<uuid>`, `MIG-<uuid>` | NVIDIA's device plugin | the UUID |
| `<id>::<n>`, `<id>/vgpu<n>` | time-slicing and MPS, of NVIDIA and of GKE | replica n of one device |
| `3` | index | NVML's index |
| `nvidia3`, `nvidia3/gi7` | GKE's device plugin | minor number, GPU instance |
| `gpu-3` | dynamic allocation | minor number, in drivers before mid-2025 the index: told when both mean the same GPU |
| `gpu-3-mig-1g10gb-19-0` | dynamic allocation | a placement, whose device the CDI specification tells |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from palegreen.exporter.nvml.usage import DeviceUse

_REPLICA = re.compile(r"::\d+$|/vgpu\d+$")
_UUID = r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_GPU = re.compile(_UUID)
_MIG = re.compile(r"MIG-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OLD_MIG = re.compile(rf"MIG-({_UUID})/\d+/\d+")  # drivers before R470
_GKE = re.compile(r"nvidia(\d+)(?:/gi(\d+))?")
_DYNAMIC = re.compile(r"gpu-(\d+)")
_NODE = re.compile(r"/dev/nvidia(\d+)")
_CAPABILITY = re.compile(r"/dev/nvidia-caps/nvidia-cap(\d+)")
_MINOR = re.compile(r"gpu(\d+)/gi(\d+)(?:/ci(\d+))?/access (\d+)")


class Device(NamedTuple):
    """A GPU's labels; `gpu` is empty where the driver is not read, `uuid` too for a MIG device it does not list."""

    uuid: str
    gpu: str
    mig: str


class Instance(NamedTuple):
    """A GPU instance, or a compute instance in it, of the GPU with this minor number."""

    minor: int
    gpu_instance: int
    compute_instance: int | None


class Devices:
    """The devices of the node by each of their names.

    `nodes` are device nodes by CDI name, `capabilities` is what each /dev/nvidia-caps/nvidia-cap<n> gives access to.
    """

    def __init__(
        self,
        uses: Sequence[DeviceUse],
        nodes: Mapping[str, tuple[str, ...]],
        capabilities: Mapping[int, Instance],
    ) -> None:
        self._nodes = nodes
        self._capabilities = capabilities
        self._by_uuid: dict[str, Device] = {}
        self._by_index: dict[str, Device] = {}
        self._by_minor: dict[int, Device] = {}
        self._by_instance: dict[tuple[int | None, int | None], dict[int | None, Device]] = {}
        for use in uses:
            whole = Device(use.uuid, use.gpu, "")
            self._by_uuid[use.uuid] = self._by_index[use.gpu] = whole
            if use.minor is not None:
                self._by_minor[use.minor] = whole
            if use.mig:
                self._by_uuid[use.mig] = part = Device(use.uuid, use.gpu, use.mig)
                if use.gpu_instance is not None:
                    instance = self._by_instance.setdefault((use.minor, use.gpu_instance), {})
                    instance[use.compute_instance] = part

    def plugin(self, name: str) -> Device | None:
        """The device a device plugin knows by this id."""
        name = _REPLICA.sub("", name)
        if name in self._by_uuid:
            return self._by_uuid[name]
        if name.isdigit():
            return self._by_index.get(name)
        if gke := _GKE.fullmatch(name):
            minor = int(gke[1])
            return self._by_minor.get(minor) if gke[2] is None else self._instance(Instance(minor, int(gke[2]), None))
        return _by_form(name)

    def dynamic(self, name: str, cdi: Sequence[str]) -> Device | None:
        """The device of a claim, by its CDI names and by its name in the driver's pool."""
        for qualified in cdi:
            if found := self._given(self._nodes.get(qualified, ())):
                return found
            own = qualified.partition("=")[2]
            if found := self._by_uuid.get(own) or _by_form(own):
                return found
        if whole := _DYNAMIC.fullmatch(name):
            by_index, by_minor = self._by_index.get(whole[1]), self._by_minor.get(int(whole[1]))
            return by_index if by_index == by_minor else None
        return None

    def _given(self, paths: Sequence[str]) -> Device | None:
        """The one device whose nodes these are."""
        parts = [
            self._capabilities.get(int(node[1])) for path in paths if (node := _CAPABILITY.fullmatch(path)) is not None
        ]
        if parts:
            exact = [part for part in parts if part is not None and part.compute_instance is not None]
            return self._instance(exact[0]) if len(exact) == 1 else None
        minors = {int(node[1]) for path in paths if (node := _NODE.fullmatch(path)) is not None}
        return self._by_minor.get(minors.pop()) if len(minors) == 1 else None

    def _instance(self, wanted: Instance) -> Device | None:
        computes = self._by_instance.get((wanted.minor, wanted.gpu_instance), {})
        if wanted.compute_instance is not None:
            return computes.get(wanted.compute_instance)
        return next(iter(computes.values())) if len(computes) == 1 else None


def capabilities(text: str) -> dict[int, Instance]:
    """What each capability node gives access to, from the driver's mig-minors (lines such as `gpu0/gi1/access 12`)."""
    found = {}
    for line in text.splitlines():
        if match := _MINOR.fullmatch(line.strip()):
            compute = int(match[3]) if match[3] is not None else None
            found[int(match[4])] = Instance(int(match[1]), int(match[2]), compute)
    return found


def _by_form(name: str) -> Device | None:
    """What an id says by itself, where the driver does not list the device or is not read."""
    if _GPU.fullmatch(name):
        return Device(name, "", "")
    if old := _OLD_MIG.fullmatch(name):
        return Device(old[1], "", name)
    return Device("", "", name) if _MIG.fullmatch(name) else None
