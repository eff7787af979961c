"""The sources that a configuration asks for, engines aside: made once, at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palegreen.exporter.attribution.owners import Owners
from palegreen.exporter.attribution.source import UsageSource
from palegreen.exporter.attribution.stalls import Stalled
from palegreen.exporter.capacity import CapacitySource
from palegreen.exporter.config import NodeConfig
from palegreen.exporter.dcgm.client import DcgmExporter
from palegreen.exporter.dcgm.source import DcgmSource
from palegreen.exporter.kubelet.source import SOCKET, KubeletSource, present
from palegreen.exporter.network.source import NetworkSource
from palegreen.exporter.nvml.source import NvmlSource
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.exporter.source import Source
from palegreen.exporter.stragglers import StragglerSource


def node_sources(config: NodeConfig) -> dict[str, Source]:
    """Sources of the node itself by a key of their own; their settings are read once (`config.FIXED`)."""
    sources: dict[str, Source] = {}
    host = config.host_root
    owners = Owners(host / "proc", host / "var" / "log", commands=config.attribution_commands)
    usage: Callable[[], Sequence[DeviceUse]] | None = None
    nvml = None
    if config.nvml:
        nvml = NvmlSource(config.nvml_library, config.nvml_interval, tick=config.nvml_sample_interval)
        sources["nvml"], usage = nvml, nvml.usage
        sources["capacity"] = CapacitySource(nvml.usage, config.model_sizes)
        if config.attribution:
            stalled = Stalled(host / "sys" / "fs" / "cgroup")
            sources["attribution"] = UsageSource(nvml.usage, owners, stalled, config.nvml_interval)
            sources["stragglers"] = StragglerSource(nvml.usage, owners.of)
    if config.dcgm is not None:
        exporter = DcgmExporter(config.dcgm, min(max(config.dcgm_interval, 2.0), 10.0))
        provides = nvml.provides if nvml is not None else lambda _metric, _uuid: False
        mig_device = nvml.mig_device if nvml is not None else lambda _uuid, _instance: ""
        sources["dcgm"] = DcgmSource(exporter, config.dcgm_interval, provides, mig_device)
    if config.network:
        sources["network"] = NetworkSource(config.network_interval, host / "sys")
    if config.kubelet and (config.kubelet_socket != SOCKET or present(SOCKET)):
        sources["kubelet"] = KubeletSource(config.kubelet_socket, usage)
    return sources
