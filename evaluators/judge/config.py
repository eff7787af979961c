"""The section `judge` of the evaluator's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from palegreen.runtime.quantity import Seconds
from palegreen.runtime.settings import Section, Url


class JudgeConfig(Section):
    """A model that scores responses. Redacted texts of samples are sent to it."""

    url: Url = Field(description="OpenAI-compatible API, such as http://judge:8000/v1; redacted texts are sent there")
    model: str = Field(min_length=1, description="name of the model that judges")
    api_key_file: Path | None = Field(None, description="file with its key, read before each request")
    ca_file: Path | None = Field(None, description="certificate authority of an https URL")
    requests_per_hour: int = Field(60, ge=1, le=100_000, description="most requests in any hour")
    background_per_hour: float = Field(
        0, ge=0, description="of these, how many while no alarm is up; 0: it is asked only during alarms"
    )
    contexts: bool = Field(True, description="send the retrieved passages too")
    max_characters: int = Field(6000, ge=100, description="most of each text that is sent; the rest is cut")
    max_tokens: int = Field(300, ge=16, description="most tokens of its answer")
    timeout: Seconds = Field(30.0, le=600, description="most time of a request")
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="how the API is told to answer in JSON"
    )
    extra: dict[str, Any] = Field({}, description="further fields of the request; null takes one away")
    input_price: float | None = Field(None, ge=0, allow_inf_nan=False, description="price of a million input tokens")
    output_price: float | None = Field(None, ge=0, allow_inf_nan=False, description="price of a million output tokens")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="currency of the prices")

    @model_validator(mode="after")
    def _fits_together(self) -> JudgeConfig:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price go together; allowed: both or neither")
        if self.background_per_hour > self.requests_per_hour:
            raise ValueError("background_per_hour is a part of requests_per_hour; allowed: no more than that")
        return self
