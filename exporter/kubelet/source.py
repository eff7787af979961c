"""The kubelet as a source: which container holds which GPU, read in a thread of its own and never in a scrape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from palegreen.exporter.attribution.replicas import GpuName, Holding
from palegreen.exporter.kubelet.cdi import FOLDER, Specs
from palegreen.exporter.kubelet.client import Client, KubeletError
from palegreen.exporter.kubelet.devices import Device, Devices, Instance, capabilities
from palegreen.exporter.kubelet.wire import Held, held
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import Collected, Readings

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_MIG_MINORS = Path("/proc/driver/nvidia-caps/mig-minors")
_DRIVER = "gpu.nvidia.com"  # of dynamic allocation; compute-domain.nvidia.com and others hand out no GPUs
_SOON = 1.0  # seconds
_MOST = 8192  # series; a node has at most some hundred pods


class KubeletSource:
    """Reads the pod-resources socket `path`. `devices` gives what the driver knows of the node's GPUs, if it is read.

    A reading may take `patience` seconds. `cdi` and `mig_minors` tell which device a claim has got. While the driver
    knows no GPU, as at the start, the list is read more often, so that it is soon shown with the GPUs' labels.
    """

    name = "kubelet"
    target = ""

    def __init__(
        self,
        path: Path = SOCKET,
        devices: Callable[[], Sequence[DeviceUse]] | None = None,
        *,
        interval: float = 15.0,
        patience: float = 10.0,
        cdi: Path = FOLDER,
        mig_minors: Path = _MIG_MINORS,
    ) -> None:
        self.interval = self._interval = interval
        self.deadline = patience + 2.0  # gRPC keeps its own; this one is for all else that may hang
        self._path = path
        self._devices = devices
        self._client = Client(path, patience)
        self._specs = Specs(cdi)
        self._mig_minors = mig_minors
        self._seen = ""
        self._holding: tuple[Holding, ...] = ()

    def collect(self) -> Readings:
        """One series for each container and GPU; raises KubeletError where the kubelet gives no list."""
        self._holding, series = (), self._series()
        collected = Collected()
        for labels in series:
            collected.add("palegreen_gpu_allocation_info", 1, *labels)
        unknown = sum(not uuid and not mig for uuid, _, mig, *_ in series)
        self._seen = f"{len(series)} held" + (f", {unknown} under names that tell no GPU" if unknown else "")
        self._holding = tuple(Holding(labels[3], labels[4], GpuName(labels[0], labels[2])) for labels in series)
        return collected.readings()

    def holding(self) -> tuple[Holding, ...]:
        """Which pod held which GPU in the last list; empty where that could not be had."""
        return self._holding

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def describe(self) -> str:
        """What the last list held."""
        return f"GPUs of containers: {self._seen or 'not read'} ({self._path})"

    def _series(self) -> list[tuple[str, ...]]:
        body = self._client.list()
        try:
            listed = [device for device in held(body) if _may_be_gpu(device)]
        except ValueError:
            raise KubeletError(f"{self._path} answers what is no list of pods", "is it the kubelet's?") from None
        known = self._known(any(device.claim for device in listed))
        series: set[tuple[str, ...]] = set()
        for device in listed:
            if labels := _labels(device, known):
                series.add(labels)
        if len(series) > _MOST:
            raise KubeletError(f"{self._path} lists {len(series)} GPUs held", f"at most {_MOST} are believed")
        return sorted(series)

    def _known(self, dynamic: bool) -> Devices:
        nodes: dict[str, tuple[str, ...]] = {}
        migs: dict[int, Instance] = {}
        if dynamic:
            nodes = self._specs.nodes()
            try:
                migs = capabilities(self._mig_minors.read_text(encoding="ascii", errors="replace"))
            except OSError:  # a driver without MIG has none
                migs = {}
        uses = self._devices() if self._devices is not None else ()
        waiting = self._devices is not None and not uses
        self.interval = min(_SOON, self._interval) if waiting else self._interval
        return Devices(uses, nodes, migs)


def present(socket: Path) -> bool:
    """Whether this looks like a node of Kubernetes: the socket's folder is there, or we may not look."""
    try:
        socket.parent.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _may_be_gpu(device: Held) -> bool:
    if device.claim:
        return device.resource == _DRIVER or any(name.partition("/")[0].endswith(_DRIVER) for name in device.cdi)
    return _named_gpu(device) or device.device.startswith(("GPU-", "MIG-"))  # resources can be renamed


def _named_gpu(device: Held) -> bool:
    return device.resource.startswith(("nvidia.com/gpu", "nvidia.com/mig-"))


def _labels(device: Held, known: Devices) -> tuple[str, ...] | None:
    found = known.dynamic(device.device, device.cdi) if device.claim else known.plugin(device.device)
    uuid, gpu, mig = found or Device("", "", "")
    if found is None and not device.claim and not _named_gpu(device):
        return None  # another vendor's device, whose id only begins like a GPU's
    # replicas of one GPU in one container are one allocation, so a device that is known carries no name of its own
    name = "" if found else device.device or ",".join(device.cdi)
    return uuid, gpu, mig, device.namespace, device.pod, device.container, device.resource, device.claim, name
