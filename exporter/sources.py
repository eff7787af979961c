"""The sources that a configuration asks for, engines aside: made once, at the start."""

from __future__ import annotations

from palegreen.exporter.allocator.files import Files
from palegreen.exporter.allocator.source import AllocatorSource
from palegreen.exporter.config import NodeConfig
from palegreen.exporter.nvml.source import NvmlSource
from palegreen.exporter.source import Source


def node_sources(config: NodeConfig) -> dict[str, Source]:
    """Sources of the node itself by a key of their own; their settings are read once (`config.FIXED`)."""
    sources: dict[str, Source] = {}
    nvml = None
    if config.nvml:
        nvml = NvmlSource(config.nvml_library, config.nvml_interval)
        sources["nvml"] = nvml
    if config.allocator_dir is not None:
        usage = nvml.usage if nvml is not None else tuple
        sources["allocator"] = AllocatorSource(Files(config.allocator_dir), usage)
    return sources
