"""The section `canary` of the evaluator's configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from palegreen.runtime.quantity import Seconds
from palegreen.runtime.settings import Section, Url

_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"  # RFC 9110's token


class CanaryConfig(Section):
    """Fixed questions that are put straight to the replica, and whether it makes progress at all."""

    reference: Path | None = Field(
        None, description="recorded answers (`palegreen canary record`); without it only progress is looked at"
    )
    url: Url | None = Field(None, description="the replica itself, never a balancer; else the upstream")
    model: str = Field(
        "", description="name that the engine is asked for; else the reference's, `model`, or the first it lists"
    )
    api_key_file: Path | None = Field(None, description="secret for the engine, read before each request")
    api_key_header: str = Field(
        "authorization", pattern=_HEADER, description="header of the secret; in authorization it is a bearer token"
    )
    timeout: Seconds = Field(60.0, description="of one canary")
    requests_per_minute: float = Field(2.0, gt=0, le=600, description="canaries a minute, one at a time, with jitter")
    tokens_per_hour: int = Field(
        50_000, gt=0, description="tokens of prompts and answers; beyond it canaries are skipped and counted"
    )
    sampled_share: float = Field(
        0.2, ge=0, le=1, description="share of canaries that is asked at the reference's temperature instead of 0"
    )
    false_alarm_every: Seconds = Field(
        30 * 86400.0, description="the sampled canaries alarm falsely at most once in this time, on average"
    )
    priority: int | None = Field(
        None, description="priority that is sent with each request, for engines that know it (vLLM: higher is later)"
    )
    forward_progress: bool = Field(True, description="ask for one token again and again")
    progress_interval: Seconds = Field(15.0, description="time between two such requests")
    progress_timeout: Seconds = Field(10.0, description="of such a request")
    hung_after: Seconds = Field(
        30.0,
        description="no progress for so long, by any evidence, is a hung engine; 2.5 times as long where there is"
        " no evidence but the request itself",
    )
