"""The sources that a configuration asks for, engines aside: made once, at the start."""

from __future__ import annotations

from palegreen.exporter.config import NodeConfig
from palegreen.exporter.dcgm.client import DcgmExporter
from palegreen.exporter.dcgm.source import DcgmSource
from palegreen.exporter.nvml.source import NvmlSource
from palegreen.exporter.source import Source


def node_sources(config: NodeConfig) -> dict[str, Source]:
    """Sources of the node itself by a key of their own; their settings are read once (`config.FIXED`)."""
    sources: dict[str, Source] = {}
    nvml = None
    if config.nvml:
        nvml = NvmlSource(config.nvml_library, config.nvml_interval)
        sources["nvml"] = nvml
    if config.dcgm is not None:
        exporter = DcgmExporter(config.dcgm, min(max(config.dcgm_interval, 2.0), 10.0))
        provides = nvml.provides if nvml is not None else lambda _metric, _uuid: False
        mig_device = nvml.mig_device if nvml is not None else lambda _uuid, _instance: ""
        sources["dcgm"] = DcgmSource(exporter, config.dcgm_interval, provides, mig_device)
    return sources
