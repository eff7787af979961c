"""The sources that a configuration asks for, engines aside: made once, at the start."""

from __future__ import annotations

from palegreen.exporter.capacity import CapacitySource
from palegreen.exporter.config import NodeConfig
from palegreen.exporter.nvml.source import NvmlSource
from palegreen.exporter.source import Source


def node_sources(config: NodeConfig) -> dict[str, Source]:
    """Sources of the node itself by a key of their own; their settings are read once (`config.FIXED`)."""
    sources: dict[str, Source] = {}
    if config.nvml:
        nvml = NvmlSource(config.nvml_library, config.nvml_interval, tick=config.nvml_sample_interval)
        sources["nvml"] = nvml
        sources["capacity"] = CapacitySource(nvml.usage, config.model_sizes)
    return sources
