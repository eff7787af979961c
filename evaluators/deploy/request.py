"""The body of `POST /-/deploy`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from palegreen.runtime.settings import Section
from palegreen.runtime.yamlfile import describe


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("got characters that cannot be printed; allowed: one line of text")
    return value


Line = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


class DeployRequest(Section):
    """What whoever deploys says of it; both are logged and nothing else."""

    revision: Line = ""
    note: Line = ""


def parsed(body: bytes) -> DeployRequest:
    """The request that a body is; an empty one says nothing. Raises ValueError, one line."""
    if not body.strip():
        return DeployRequest()
    try:
        return DeployRequest.model_validate_json(body)
    except ValidationError as refused:
        first = refused.errors()[0]
        if first["type"] == "json_invalid":
            raise ValueError('not JSON; allowed: nothing, or {"revision": "...", "note": "..."}') from None
        where = ".".join(map(str, first["loc"]))
        problem = describe(DeployRequest, first)
        raise ValueError(f"{where}: {problem}" if where else problem) from None
