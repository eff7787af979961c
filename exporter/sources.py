"""The sources that a configuration asks for, engines aside: made once, at the start."""

from __future__ import annotations

from palegreen.exporter.attribution.owners import Owners
from palegreen.exporter.attribution.source import UsageSource
from palegreen.exporter.attribution.stalls import Stalled
from palegreen.exporter.config import NodeConfig
from palegreen.exporter.nvml.source import NvmlSource
from palegreen.exporter.source import Source


def node_sources(config: NodeConfig) -> dict[str, Source]:
    """Sources of the node itself by a key of their own; their settings are read once (`config.FIXED`)."""
    sources: dict[str, Source] = {}
    if config.nvml:
        nvml = NvmlSource(config.nvml_library, config.nvml_interval)
        sources["nvml"] = nvml
        if config.attribution:
            host = config.host_root
            owners = Owners(host / "proc", host / "var/log", commands=config.attribution_commands)
            stalled = Stalled(host / "sys/fs/cgroup")
            sources["attribution"] = UsageSource(nvml.usage, owners, stalled, config.nvml_interval)
    return sources
