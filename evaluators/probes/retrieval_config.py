"""Which indexes are probed, and how: the section `retrieval` of the evaluator's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from palegreen.runtime.quantity import Bytes, Seconds
from palegreen.runtime.settings import Section, Url

FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
CONTRACT = {"text": "$text", "vector": "$vector", "k": "$k", "exact": "$exact"}
"""What is sent where the configuration gives no body."""


class HttpSearch(Section):
    """An index that answers over HTTP; `$text`, `$vector`, `$k` and `$exact` stand for what is asked."""

    url: Url = Field(description="where it is searched; may hold `$text`, `$k` and `$exact`")
    method: Literal["POST", "GET", "PUT"] = Field("POST", description="HTTP method")
    headers_file: Path | None = Field(None, description="file of further headers, NAME: VALUE a line, such as a key")
    ca_file: Path | None = Field(None, description="certificate authority of an https URL")
    body: dict[str, Any] | None = Field(
        None, description="JSON to send; without it `{text, vector, k, exact}`, and nothing at all with GET"
    )
    exact_url: Url | None = Field(None, description="where exact search is asked for, if elsewhere")
    exact_body: dict[str, Any] | None = Field(None, description="JSON that asks for exact search, if another")
    ids: str = Field("ids", description="where the ranked ids stand in the answer, such as `result.points[*].id`")
    scores: str = Field("", description="where their scores stand; lets ties count as found")
    query_vector: str = Field("", description="where the vector of the query stands, if the answer has it")

    @property
    def sent(self) -> dict[str, Any] | None:
        """The body as configured or by the contract."""
        return CONTRACT if self.body is None and self.method != "GET" else self.body

    @property
    def searches_exactly(self) -> bool:
        """Whether the index itself can be asked for exact search."""
        return bool(self.exact_url or self.exact_body) or self.sent is CONTRACT or self.wants("$exact")

    def wants(self, placeholder: str) -> bool:
        """Whether the index cannot be asked without it; the contract sends what there is and wants nothing."""
        return any(placeholder in repr(part) for part in (self.url, self.exact_url, self.body, self.exact_body))


class RetrievalConfig(Section):
    """An index whose approximate search is compared with exact search. Either `http` or `python` says how to ask."""

    index: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,63}$", description="name of the index; becomes the label index")
    k: int = Field(10, ge=1, le=1000, description="results asked for")
    http: HttpSearch | None = Field(None, description="an index that answers over HTTP")
    python: str | None = Field(None, pattern=FUNCTION, description="a function that asks the index, MODULE:FUNCTION")
    vectors: Path | None = Field(
        None, description="vectors of the index (.npz, .npy, .parquet), where it cannot search exactly itself"
    )
    vectors_sample: bool = Field(False, description="the file holds a random part of the index")
    vectors_limit: Bytes = Field(256 << 20, description="most memory of these vectors")
    distance: Literal["cosine", "dot", "euclidean"] = Field("cosine", description="what is near, for the file")
    queries: Path | None = Field(None, description="JSON lines with text, vector or both; without it the store's")
    embedder: str | None = Field(None, description="what embeds texts without vectors: must be that of the index")
    interval: Seconds = Field(60.0, description="time between two rounds")
    queries_per_round: int = Field(5, ge=1, le=1000, description="queries of a round, one after the other")
    timeout: Seconds = Field(5.0, le=300, description="most time of a search")
    exact_timeout: Seconds = Field(30.0, le=300, description="most time of an exact search")
    window: int = Field(200, ge=10, le=1000, description="latest queries over which recall is taken")
    seed: int = Field(0, description="of the order in which queries are asked")

    @model_validator(mode="after")
    def _fits_together(self) -> RetrievalConfig:
        if (self.http is None) == (self.python is None):
            raise ValueError(f"{self.index}: allowed: one of http and python")
        if self.http is not None and self.vectors is None and not self.http.searches_exactly:
            raise ValueError(
                f"{self.index}: nothing says how to search exactly; allowed: $exact in http.url or http.body, "
                "http.exact_url, http.exact_body, or vectors"
            )
        if self.vectors is not None and self.vectors.suffix not in (".npz", ".npy", ".parquet"):
            raise ValueError(f"{self.index}: vectors: got {self.vectors}; allowed: a file .npz, .npy or .parquet")
        if self.vectors_sample and self.vectors is None:
            raise ValueError(f"{self.index}: vectors_sample is given without vectors; allowed: both")
        return self


def _distinct(entries: list[RetrievalConfig]) -> list[RetrievalConfig]:
    seen: set[tuple[str, int]] = set()
    for entry in entries:
        if (entry.index, entry.k) in seen:
            raise ValueError(f"{entry.index} with k {entry.k} is there twice; allowed: once")
        seen.add((entry.index, entry.k))
    return entries


Retrievals = Annotated[list[RetrievalConfig], AfterValidator(_distinct)]
