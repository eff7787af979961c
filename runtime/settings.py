"""What configurations are made of: sections, addresses, URLs; and flags laid over a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from palegreen.runtime.web import ListenError, parse_address
from palegreen.runtime.yamlfile import ConfigError

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if "@" in value:
        raise ValueError(
            "got a URL with a user or password; allowed: http://HOST:PORT or https://HOST:PORT, and a bearer_token_file"
        )
    if not usable or parts.fragment:
        raise ValueError(f"got {value!r}; allowed: http://HOST:PORT or https://HOST:PORT, with or without a path")
    return value


def _address(value: str) -> str:
    try:
        parse_address(value)
    except ListenError as error:
        raise ValueError(str(error)) from None
    return value


Url = Annotated[str, AfterValidator(_url)]
Address = Annotated[str, AfterValidator(_address)]


def overlaid(base: M, overrides: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> M:
    """`base` with other values for some of its fields.

    `origins` names where each came from (`--engine`, `PALEGREEN_ENGINE`), for errors.
    Raises ConfigError, one line.
    """
    try:
        return type(base).model_validate(base.model_dump() | dict(overrides))
    except ValidationError as refused:
        first = refused.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        problem = first.get("ctx", {}).get("error") or f"got {first['input']!r}; allowed: {_allowed(first['msg'])}"
        where = (origins or {}).get(key, key)
        raise ConfigError(f"{where}: {problem}" if where else str(problem)) from None


def _allowed(message: str) -> str:
    return "true, false" if "boolean" in message else message.removeprefix("Input should be ")
