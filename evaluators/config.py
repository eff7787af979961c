"""Configuration of the evaluator: flags over environment over file over defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from palegreen.evaluators.drift.config import DriftConfig
from palegreen.evaluators.judge.config import JudgeConfig
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.retrieval_config import Retrievals
from palegreen.runtime.identity import instance_id
from palegreen.runtime.log import Format, Level
from palegreen.runtime.otlp.config import OtlpExportConfig
from palegreen.runtime.quantity import Bytes, Seconds
from palegreen.runtime.settings import Address, Section, Url, overlaid
from palegreen.runtime.web import parse_address
from palegreen.runtime.yamlfile import ConfigError, Document

_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"  # RFC 9110's token
Ratio = Annotated[float, Field(ge=0, le=1)]


class Pattern(Section):
    """A pattern of one's own."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,30}$", description="stands in the text as [NAME], and is the label kind"
    )
    pattern: str = Field(min_length=1, description="regular expression, RE2's syntax")


class RedactionConfig(Section):
    """What is taken out of texts before they are stored, logged or exported."""

    emails: bool = Field(True, description="e-mail addresses")
    phones: bool = Field(True, description="phone numbers")
    phone_region: str = Field("US", pattern=r"^[A-Z]{2}$", description="where numbers without a country code are from")
    cards: bool = Field(True, description="card numbers (Luhn)")
    secrets: bool = Field(True, description="keys, tokens, passwords in URLs, private keys")
    ips: bool = Field(True, description="IP addresses")
    names: list[str] = Field([], description="names and other words, whole and in any case")
    names_file: Path | None = Field(None, description="more of them, one a line")
    patterns: list[Pattern] = Field([], description="patterns of one's own")


class EvaluateConfig(Section):
    """Everything the evaluator can be told. Each scalar field is a flag and a variable of the same name."""

    listen_address: Address = Field("0.0.0.0:9451", description="address of /metrics and the status page")
    upstream: Url | None = Field(None, description="engine or API behind the proxy, http(s)://HOST:PORT")
    proxy_address: Address = Field("0.0.0.0:8080", description="address of the proxy, where there is an upstream")
    proxy_tls_cert_file: Path | None = Field(None, description="certificate of the proxy; without it, it speaks HTTP")
    proxy_tls_key_file: Path | None = Field(None, description="key of that certificate")
    upstream_ca_file: Path | None = Field(None, description="certificate authority of an https upstream")
    upstream_insecure_skip_verify: bool = Field(False, description="do not verify an https upstream's certificate")
    sink_address: Address | None = Field(
        None, description="address for OTLP/HTTP, KServe's CloudEvents, LiteLLM's callback and feedback"
    )
    otlp_grpc_address: Address | None = Field(None, description="address for OTLP/gRPC")
    tap_socket: Path | None = Field(None, description="unix socket for the ASGI tap")
    file: Path | None = Field(None, description="JSON lines to score")
    follow: bool = Field(True, description="keep reading the file as it grows and is rotated; else it is read once")
    model: str = Field("", description="model name for samples that carry none")
    endpoint: str = Field("", description="logical service that users call; becomes the label endpoint")
    namespace: str = Field("", description="Kubernetes namespace of the engine")
    pod: str = Field("", description="pod of the engine; makes instance_id namespace/pod")
    instance_id: str = Field("", description="overrides namespace/pod or hostname:port of the upstream")
    sample_rate: Ratio = Field(1.0, description="share of responses that is scored")
    session_interval: Seconds | None = Field(None, description="score at most one response a session in this time")
    session_header: str = Field("x-session-id", pattern=_HEADER, description="request header that names the session")
    keep_errors: bool = Field(True, description="score every error, marked, whatever the rate")
    keep_header: str = Field(
        "x-palegreen-keep", pattern=_HEADER, description="requests with this header are scored, marked"
    )
    samples_per_second: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="most samples a second, and as many errors; not of tagged requests"
    )
    body_limit: Bytes = Field(
        1 << 20, description="most that is held of a request or response; the rest only passes by"
    )
    queue_limit: Bytes = Field(
        32 << 20, description="most memory of samples that wait to be scored, and as much again of exchanges under way"
    )
    embedder: str = Field("minilm", description="minilm, static, none, or sentence-transformers:MODEL")
    baseline: Path | None = Field(None, description="baseline to compare with")
    baseline_max_age: Seconds = Field(30 * 86400.0, description="a baseline that was made longer ago is shown as stale")
    baseline_candidates: bool = Field(
        True, description="fit a candidate after a declared deploy, where there is a store and a folder of baselines"
    )
    candidate_samples: int = Field(1000, ge=600, description="samples since the deploy that a candidate waits for")
    pod_template_hash: str = Field("", description="label pod-template-hash of the engine's pod; another is a deploy")
    projection: Path | None = Field(
        None, description="projection that replicas are compared by, where the embedder is not one of those shipped"
    )
    revision: str = Field("", description="revision that the engine serves, to compare it with others of the model")
    store: str = Field("none", description="SQLite file for samples and scores, or none: then no text is kept")
    store_max_age: Seconds = Field(7 * 86400.0, description="samples are deleted after this time")
    store_max_size: Bytes = Field(1 << 30, ge=1 << 20, description="the oldest samples are deleted beyond this size")
    scorer_threads: int = Field(1, ge=1, le=64, description="threads of the embedder")
    scorer_memory_limit: Bytes = Field(
        600 << 20, ge=64 << 20, description="the scorer is started again when it holds more"
    )
    scorer_timeout: Seconds = Field(
        15.0, ge=2, description="the scorer is started again when it is silent for this time"
    )
    redaction: RedactionConfig = Field(RedactionConfig(), description="what is taken out of texts")
    checks: dict[str, dict[str, Any]] = Field({}, description="settings of checks, by name")
    drift: DriftConfig = Field(DriftConfig(), description="how samples are compared with the baseline")
    canary: CanaryConfig | None = Field(None, description="questions that are put straight to the replica")
    otlp: OtlpExportConfig | None = Field(None, description="where results are sent by OTLP")
    retrieval: Retrievals = Field([], description="indexes whose recall is probed")
    judge: JudgeConfig | None = Field(None, description="a model that scores responses, and when it is asked")
    web_config_file: Path | None = Field(None, description="TLS, users and headers, in exporter-toolkit's format")
    log_level: Level = Field("info", description="least level that is logged")
    log_format: Format = Field("logfmt", description="format of the log")

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluateConfig:
        if self.pod and not self.namespace:
            raise ValueError("pod is given without its namespace; allowed: both or neither")
        if (self.proxy_tls_cert_file is None) != (self.proxy_tls_key_file is None):
            raise ValueError("proxy_tls_cert_file and proxy_tls_key_file go together; allowed: both or neither")
        if self.upstream and urlsplit(self.upstream).query:
            raise ValueError("upstream has a query; allowed: http(s)://HOST:PORT with or without a path")
        if self.upstream and self._is_own(self.upstream):
            raise ValueError("upstream is the proxy itself; allowed: the address of the engine behind it")
        if self.store_path is not None and not self.store_path.parent.is_dir():
            raise ValueError(f"store: {self.store_path.parent} is not a folder; allowed: a file in one, or none")
        return self

    def _is_own(self, upstream: str) -> bool:
        parts, (host, port) = urlsplit(upstream), parse_address(self.proxy_address)
        own = {host, "localhost", "127.0.0.1", "::1"} if host in _ANY or host in _LOOPBACK else {host}
        return port == (parts.port or {"http": 80, "https": 443}[parts.scheme]) and parts.hostname in own

    def identity(self) -> str:
        """The label instance_id."""
        url = self.upstream or f"http://{self.proxy_address}"
        return self.instance_id or instance_id(url, self.namespace, self.pod)

    def common(self) -> tuple[str, str, str, str]:
        """Values of the labels endpoint, instance_id, namespace, pod."""
        return (self.endpoint, self.identity(), self.namespace, self.pod)

    def taps(self) -> tuple[str, ...]:
        """The taps that are configured: values of the label tap."""
        taps = {
            "proxy": self.upstream,
            "asgi": self.tap_socket,
            "otlp": self.sink_address or self.otlp_grpc_address,
            "kserve": self.sink_address,
            "litellm": self.sink_address,
            "feedback": self.sink_address,
            "file": self.file,
        }
        return tuple(name for name, given in taps.items() if given)

    def probes(self) -> tuple[str, ...]:
        """What the probe process is for; without any it is not started."""
        given = {"canary": self.canary, "fingerprint": self.upstream, "retrieval": self.retrieval}
        return tuple(name for name, section in given.items() if section)

    def offline_threads(self) -> int:
        """Threads of the embedder where nobody is served beside it: those that are set, else one a processor."""
        return self.scorer_threads if "scorer_threads" in self.model_fields_set else len(os.sched_getaffinity(0))

    @property
    def store_path(self) -> Path | None:
        """The store's file, None where no text is kept."""
        return None if self.store == "none" else Path(self.store)

    def resource(self) -> dict[str, str]:
        """What OpenTelemetry calls the resource: who sends."""
        known = {
            "service.name": self.endpoint or "palegreen",
            "service.instance.id": self.identity(),
            "k8s.namespace.name": self.namespace,
            "k8s.pod.name": self.pod,
        }
        return {name: value for name, value in known.items() if value}


_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What the scorer alone is told, which is started again for it; any other change needs a restart.
_LIVE = (
    "model", "embedder", "baseline", "projection", "revision", "store", "store_max_age", "store_max_size",
    "scorer_threads", "baseline_max_age", "baseline_candidates", "candidate_samples", "pod_template_hash",
    "redaction", "checks", "drift", "canary", "retrieval", "judge", "otlp", "log_level",
)  # fmt: skip
FIXED = tuple(key for key in EvaluateConfig.model_fields if key not in _LIVE)
# Sections of the file that are no flags.
SECTIONS = ("redaction", "checks", "drift", "canary", "retrieval", "judge", "otlp")


def load(path: Path | None, overrides: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> EvaluateConfig:
    """The configuration of `path` with `overrides` on top. Raises ConfigError, one line."""
    base = Document.read(path).validate(EvaluateConfig) if path is not None else EvaluateConfig()
    config = overlaid(base, overrides, origins)
    if not config.taps():
        raise ConfigError(
            "no tap: give at least one of --upstream, --sink-address, --otlp-grpc-address, --tap-socket and --file"
        )
    if config.canary is not None and not (config.canary.url or config.upstream):
        raise ConfigError("canary needs its url, or an upstream; allowed: one of them")
    return config
