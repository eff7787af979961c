"""Where a daemon sends its results by OTLP: a section of both configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from palegreen.runtime.headersfile import read_headers
from palegreen.runtime.quantity import Seconds
from palegreen.runtime.settings import Section, Url

Version = Literal["1.36", "1.38"]


class OtlpExportConfig(Section):
    """Where results are sent by OTLP; needs the extra otel."""

    endpoint: Url = Field(description="OTLP endpoint, such as http://otel-collector:4317")
    protocol: Literal["grpc", "http/protobuf"] = Field("grpc", description="transport")
    headers_file: Path | None = Field(None, description="file of further headers, NAME: VALUE a line")
    interval: Seconds = Field(30.0, description="time between two exports of metrics")
    semantic_conventions: Version = Field("1.38", description="version of the attribute names")

    def headers(self) -> dict[str, str]:
        """The further headers by lower-case name. Raises ConfigError, one line, which quotes none of them."""
        if self.headers_file is None:
            return {}
        return read_headers(self.headers_file, "otlp: headers_file")
