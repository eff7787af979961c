"""The sources that a configuration asks for, engines aside: made once, at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from palegreen.exporter.allocator.files import Files
from palegreen.exporter.allocator.source import AllocatorSource
from palegreen.exporter.attribution.owners import Owner, Owners
from palegreen.exporter.attribution.replicas import EngineGpus, Holding
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


class NodeSources(NamedTuple):
    """Sources of the node itself by a key of their own, and what joins engines to what they say."""

    by_key: dict[str, Source]
    engine_gpus: EngineGpus


def node_sources(config: NodeConfig) -> NodeSources:
    """What is read of the node itself; its settings are read once (`config.FIXED`)."""
    sources: dict[str, Source] = {}
    host = config.host_root
    owners = Owners(host / "proc", host / "var" / "log", commands=config.attribution_commands)
    usage: Callable[[], Sequence[DeviceUse]] | None = None
    holding: Callable[[], Sequence[Holding]] = tuple
    nvml = None
    if config.nvml:
        nvml = NvmlSource(config.nvml_library, config.nvml_interval, tick=config.nvml_sample_interval)
        sources["nvml"], usage = nvml, nvml.usage
        sources["capacity"] = CapacitySource(nvml.usage, config.model_sizes)
        if config.attribution:
            stalled = Stalled(host / "sys" / "fs" / "cgroup")
            sources["attribution"] = UsageSource(nvml.usage, owners, stalled, config.nvml_interval)
            sources["stragglers"] = StragglerSource(nvml.usage, owners.of)
    if config.allocator_dir is not None:
        files = Files(config.allocator_dir)
        sources["allocator"] = AllocatorSource(files, usage or tuple, lambda pid: (owners.of(pid) or Owner())[:3])
    if config.dcgm is not None:
        exporter = DcgmExporter(config.dcgm, min(max(config.dcgm_interval, 2.0), 10.0))
        provides = nvml.provides if nvml is not None else lambda _metric, _uuid: False
        mig_device = nvml.mig_device if nvml is not None else lambda _uuid, _instance: ""
        sources["dcgm"] = DcgmSource(exporter, config.dcgm_interval, provides, mig_device)
    if config.network:
        sources["network"] = NetworkSource(config.network_interval, host / "sys")
    if config.kubelet and (config.kubelet_socket != SOCKET or present(SOCKET)):
        kubelet = KubeletSource(config.kubelet_socket, usage)
        sources["kubelet"], holding = kubelet, kubelet.holding
    return NodeSources(sources, EngineGpus((config.attribution and usage) or tuple, holding, owners))
