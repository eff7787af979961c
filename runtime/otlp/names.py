"""Names of the semantic conventions, by version: the only place that knows them.

Of GPUs (`hw.*`): https://opentelemetry.io/docs/specs/semconv/hardware/gpu/; of model servers and evaluations
(`gen_ai.*`): https://github.com/open-telemetry/semantic-conventions-genai. All are in development, hence the switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from palegreen.runtime.otlp.config import Version

Instrument = Literal["gauge", "counter", "updowncounter", "histogram"]

EVALUATION_EVENT = "gen_ai.evaluation.result"
_ATTRIBUTES = {
    # of GPUs
    "id": "hw.id",
    "type": "hw.type",
    "parent": "hw.parent",
    "name": "hw.name",
    "vendor": "hw.vendor",
    "model": "hw.model",
    "driver_version": "hw.driver_version",
    "task": "hw.gpu.task",
    "direction": "network.io.direction",
    # of model servers
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "namespace": "k8s.namespace.name",
    "pod": "k8s.pod.name",
    "endpoint": "palegreen.endpoint",
    "instance_id": "palegreen.instance_id",
    # of evaluations
    "evaluation": "gen_ai.evaluation.name",
    "score": "gen_ai.evaluation.score.value",
    "label": "gen_ai.evaluation.score.label",
    "explanation": "gen_ai.evaluation.explanation",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "sampled": "palegreen.sampled",
}
_BEFORE_1_37 = {
    "vendor": "vendor",
    "model": "model",
    "driver_version": "driver_version",
    "task": "task",
    "direction": "direction",
    "provider": "gen_ai.system",
}
_BY_VERSION: Mapping[Version, Mapping[str, str]] = {"1.36": _ATTRIBUTES | _BEFORE_1_37, "1.38": _ATTRIBUTES}


@dataclass(frozen=True)
class Conventions:
    """One version: what an attribute is called."""

    version: Version

    @property
    def schema_url(self) -> str:
        """Schema of what is sent."""
        return f"https://opentelemetry.io/schemas/{self.version}.0"

    def attributes(self, known: Mapping[str, str | float | None]) -> dict[str, str | float]:
        """Attributes under their conventional names; what is empty or None is left out."""
        names = _BY_VERSION[self.version]
        return {names[key]: value for key, value in known.items() if value is not None and value != ""}


@dataclass(frozen=True, eq=False)
class Target:
    """What a metric of ours becomes; `fixed` are attributes that all its points have."""

    name: str
    unit: str
    instrument: Instrument
    about: str
    fixed: dict[str, str | float | None] = field(default_factory=dict)


def _utilization(task: str) -> Target:
    about = "Fraction of time spent in a specific task."
    return Target("hw.gpu.utilization", "1", "gauge", about, {"task": task})


def _io(direction: str) -> Target:
    about = "Received and transmitted bytes by the GPU."
    return Target("hw.gpu.io", "By", "counter", about, {"direction": direction})


MEMORY_UTILIZATION = Target("hw.gpu.memory.utilization", "1", "gauge", "Fraction of GPU memory used.")
GPU: Mapping[str, Target] = {
    "palegreen_gpu_utilization_ratio": _utilization("general"),
    "palegreen_gpu_encoder_utilization_ratio": _utilization("encoder"),
    "palegreen_gpu_decoder_utilization_ratio": _utilization("decoder"),
    "palegreen_gpu_memory_total_bytes": Target("hw.gpu.memory.limit", "By", "updowncounter", "Size of the GPU memory."),
    "palegreen_gpu_memory_used_bytes": Target("hw.gpu.memory.usage", "By", "updowncounter", "GPU memory used."),
    "palegreen_gpu_pcie_rx_bytes_total": _io("receive"),
    "palegreen_gpu_pcie_tx_bytes_total": _io("transmit"),
}
_DURATION = Target(
    "gen_ai.server.request.duration", "s", "histogram",
    "Generative AI server request duration such as time-to-last byte or last output token.",
)  # fmt: skip
_FIRST_TOKEN = Target(
    "gen_ai.server.time_to_first_token", "s", "histogram", "Time to generate first token for successful responses."
)
SERVER: Mapping[str, Target] = {
    # of the node daemon: what the engine counts of all requests
    "palegreen_engine_request_duration_seconds": _DURATION,
    "palegreen_engine_time_to_first_token_seconds": _FIRST_TOKEN,
    "palegreen_engine_time_per_output_token_seconds": Target(
        "gen_ai.server.time_per_output_token", "s", "histogram",
        "Time per output token generated after the first token for successful responses.",
    ),
    # of the evaluator: what it saw of sampled responses
    "palegreen_response_duration_seconds": _DURATION,
    "palegreen_response_time_to_first_token_seconds": _FIRST_TOKEN,
}  # fmt: skip
