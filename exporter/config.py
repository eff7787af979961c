"""Configuration of the node daemon: flags over environment over file over defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from palegreen.exporter.kubelet.source import SOCKET
from palegreen.runtime.identity import instance_id
from palegreen.runtime.log import Format, Level
from palegreen.runtime.otlp.config import OtlpExportConfig
from palegreen.runtime.quantity import Bytes, Seconds
from palegreen.runtime.settings import Address, Section, Url, overlaid
from palegreen.runtime.yamlfile import ConfigError, Document


class EngineConfig(Section):
    """One inference server. Without a path in `url` its metrics page is looked for."""

    url: Url = Field(description="http(s)://HOST:PORT, with the path of the metrics page or without")
    endpoint: str = Field("", description="logical service that users call; becomes the label endpoint")
    namespace: str = Field("", description="Kubernetes namespace of the engine")
    pod: str = Field("", description="pod of the engine; makes instance_id namespace/pod")
    instance_id: str = Field("", description="overrides namespace/pod or hostname:port")
    model: str = Field("", description="model name for engines that publish none")
    interval: Seconds | None = Field(None, description="overrides engine_interval")
    timeout: Seconds | None = Field(None, description="overrides engine_timeout")
    bearer_token_file: Path | None = Field(None, description="file whose content is sent as a bearer token")
    ca_file: Path | None = Field(None, description="certificate authority of an https engine")
    insecure_skip_verify: bool = Field(False, description="do not verify the certificate of an https engine")

    @model_validator(mode="after")
    def _pod_has_a_namespace(self) -> EngineConfig:
        if self.pod and not self.namespace:
            raise ValueError("pod is given without its namespace; allowed: both or neither")
        return self

    def identity(self) -> str:
        """The label instance_id."""
        return self.instance_id or instance_id(self.url, self.namespace, self.pod)


class ModelSize(Section):
    """A model that might be placed on this node: what one replica needs."""

    name: str = Field(min_length=1, description="label model_size")
    memory: Bytes = Field(ge=1 << 20, description="GPU memory on each GPU, weights and KV cache")
    gpus: int = Field(1, ge=1, le=64, description="GPUs of one replica (tensor parallel)")

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: Any) -> Any:
        """`NAME=MEMORY` or `NAME=MEMORYxGPUS`, as a flag has it."""
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"([^=]+)=([^x]+?)(?:x(\d+))?", value)
        if found is None:
            raise ValueError(f"got {value!r}; allowed: NAME=MEMORY or NAME=MEMORYxGPUS, such as llama-70b=40GiBx4")
        return {"name": found[1], "memory": found[2], "gpus": int(found[3] or 1)}


def _each_name_once(sizes: list[ModelSize]) -> list[ModelSize]:
    names = [size.name for size in sizes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is declared twice; allowed: each name once")
    return sizes


class NodeConfig(Section):
    """Everything the node daemon can be told. Each field but those of SECTIONS is a flag and a variable."""

    listen_address: Address = Field(
        "0.0.0.0:9450",
        description="address to listen on",
    )
    engines: list[EngineConfig] = Field([], description="inference servers to read")
    engine_interval: Seconds = Field(5.0, description="time between two readings of an engine")
    engine_timeout: Seconds | None = Field(
        None, description="longest answer of an engine; engine_interval, within 2s to 10s"
    )
    engine_body_limit: Bytes = Field(8 << 20, description="largest metrics page of an engine")
    engine_mappings: Path | None = Field(None, description="folder of further engine mappings (*.yaml)")
    nvml: bool = Field(True, description="read GPUs through the NVIDIA driver")
    nvml_library: Path | None = Field(None, description="NVML library; found by the loader if not given")
    nvml_interval: Seconds = Field(1.0, description="time between two readings of a GPU")
    nvml_sample_interval: Seconds = Field(
        0.1, description="time between two looks at a GPU whose driver keeps no samples of its utilisation"
    )
    model_sizes: Annotated[list[ModelSize], AfterValidator(_each_name_once)] = Field(
        [], description="models whose remaining room is published"
    )
    allocator_dir: Path | None = Field(
        None, description="folder in which allocator probes of serving processes leave their files"
    )
    dcgm: Url | None = Field(None, description="dcgm-exporter of this node, http(s)://HOST:PORT; fills what NVML lacks")
    dcgm_interval: Seconds = Field(
        15.0, description="time between two readings of dcgm-exporter, which collects each 30s"
    )
    attribution: bool = Field(True, description="tell which container or unit uses a GPU; needs nvml")
    attribution_commands: bool = Field(
        False, description="show the command name of a process in no container and no unit, in the label unit"
    )
    host_root: Path = Field(
        Path("/"), description="where the host's /proc, /sys and /var/log are to be seen, such as /host"
    )
    network: bool = Field(True, description="read RDMA ports and network cards of the node")
    network_interval: Seconds = Field(5.0, description="time between two readings of the ports")
    kubelet: bool = Field(True, description="ask the kubelet, where there is one, which pod holds which GPU")
    kubelet_socket: Path = Field(SOCKET, description="the kubelet's pod-resources socket")
    otlp: OtlpExportConfig | None = Field(None, description="where GPU and engine metrics are sent by OTLP")
    web_config_file: Path | None = Field(None, description="TLS, users and headers, in exporter-toolkit's format")
    log_level: Level = Field("info", description="least level that is logged")
    log_format: Format = Field("logfmt", description="format of the log")

    def timeout(self, engine: EngineConfig) -> float:
        """Seconds one answer of the engine may take."""
        interval = engine.interval or self.engine_interval
        return engine.timeout or self.engine_timeout or min(max(interval, 2.0), 10.0)


# Sections of the file that are no flags.
SECTIONS = ("otlp",)
_LIVE = ("engines", "engine_interval", "engine_timeout", "engine_body_limit", "engine_mappings", "log_level")
# Read once at the start: a change needs a restart.
FIXED = tuple(key for key in NodeConfig.model_fields if key not in _LIVE)


def load(path: Path | None, overrides: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> NodeConfig:
    """The configuration of `path` with `overrides` on top; `engines` of both are joined.

    `origins` names where each override came from (`--engine`, `PALEGREEN_ENGINE`), for errors.
    Raises ConfigError, one line.
    """
    document = Document.read(path) if path is not None else None
    base = document.validate(NodeConfig) if document is not None else NodeConfig()
    extra = [{"url": url} for url in overrides.get("engines", ())]
    joined = dict(overrides) | {"engines": [*(engine.model_dump() for engine in base.engines), *extra]}
    config = overlaid(base, joined, origins)
    _distinct(config, document, len(base.engines))
    return config


def _distinct(config: NodeConfig, document: Document | None, in_file: int) -> None:
    """Two engines of one identity would publish the same series."""
    seen: dict[str, str] = {}
    for index, engine in enumerate(config.engines):
        identity = engine.identity()
        if identity in seen:
            problem = (
                f"instance_id {identity!r} is that of {seen[identity]} too; allowed: give one an instance_id of its own"
            )
            if document is not None and index < in_file:
                raise document.error(("engines", index, "url"), problem)
            raise ConfigError(f"--engine {engine.url}: {problem}")
        seen[identity] = engine.url
