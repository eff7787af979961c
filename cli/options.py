"""The flags of a configuration model: one per field that is no section, with a variable PALEGREEN_... of its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel

from palegreen.evaluators.config import SECTIONS as EVALUATE_SECTIONS
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.config import load as load_evaluate
from palegreen.exporter.config import SECTIONS as NODE_SECTIONS
from palegreen.exporter.config import NodeConfig
from palegreen.exporter.config import load as load_node

M = TypeVar("M", bound=BaseModel)
_DAY = 86400.0
_NUMBERS = ("_rate", "_share", "_per_minute")  # ends of keys whose values are no times
_WEB = {"web_config_file": "--web.config.file"}
_LAST_WORD = {
    "address": "HOST:PORT",
    "age": "DURATION",
    "dcgm": "URL",
    "dir": "DIR",
    "hash": "HASH",
    "header": "NAME",
    "id": "ID",
    "interval": "DURATION",
    "limit": "SIZE",
    "mappings": "DIR",
    "rate": "SHARE",
    "revision": "NAME",
    "root": "DIR",
    "samples": "N",
    "second": "N",
    "size": "SIZE",
    "threads": "N",
    "timeout": "DURATION",
    "upstream": "URL",
}


@dataclass(frozen=True)
class Options(Generic[M]):
    """The flags of one configuration model, and how it is read.

    `lists` are the fields given by a repeatable flag: (name of one value, what becomes of the file's).
    """

    model: type[M]
    load: Callable[[Path | None, Mapping[str, Any], Mapping[str, str] | None], M]
    flags: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    metavars: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[str, ...] = ()

    def flag(self, key: str) -> str:
        """The flag of a configuration key."""
        return self.flags.get(key, "--" + key.replace("_", "-"))

    def variable(self, key: str) -> str:
        """The environment variable of a configuration key."""
        return self.variables.get(key, f"PALEGREEN_{key.upper()}")

    def decorate(self, command: Callable[..., Any]) -> Callable[..., Any]:
        """Give a command these flags, and `--config`."""
        for key, about in reversed(self.model.model_fields.items()):
            if key in self.sections:
                continue
            default = "" if about.default in (None, [], "") else f" [default: {shown(key, about.default)}]"
            text = f"{about.description}{default}"
            flag, variable = self.flag(key), self.variable(key)
            if key in self.lists:
                metavar, fate = self.lists[key]
                option = click.option(flag, key, multiple=True, metavar=metavar, envvar=variable, help=fate + text)
            elif about.annotation is bool:
                # the variable is left to `loader`: click would refuse a bad one without naming it
                option = click.option(f"{flag}/--no-{flag[2:]}", key, default=None, help=text)
            else:
                option = click.option(flag, key, envvar=variable, metavar=self._metavar(key), help=text)
            command = option(command)
        path = click.Path(path_type=Path)
        return click.option("--config", type=path, envvar="PALEGREEN_CONFIG", help="configuration file (YAML)")(command)

    def loader(self, context: click.Context, config: Path | None, given: dict[str, Any]) -> Callable[[], M]:
        """A function that reads the configuration anew: flags over environment over file."""
        named = {key: os.environ.get(self.variable(key)) if value is None else value for key, value in given.items()}
        overrides = {key: value for key, value in named.items() if value not in (None, (), "")}
        origins = {
            key: self.flag(key)
            if context.get_parameter_source(key) is ParameterSource.COMMANDLINE
            else self.variable(key)
            for key in overrides
        }
        return lambda: self.load(config, overrides, origins)

    def _metavar(self, key: str) -> str:
        annotation = self.model.model_fields[key].annotation
        if get_origin(annotation) is Literal:
            return "|".join(get_args(annotation))
        return self.metavars.get(key) or _LAST_WORD.get(key.rpartition("_")[2], "FILE")


def shown(key: str, value: object) -> str:
    """A default as people write it."""
    if key.endswith(("_limit", "_size")) and isinstance(value, int):
        return f"{value >> 30}GiB" if value >= 1 << 30 else f"{value >> 20}MiB"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if key.endswith(_NUMBERS):
            return f"{value:g}"
        return f"{value / _DAY:g}d" if value >= _DAY and value % _DAY == 0 else f"{value:g}s"
    return str(value)


NODE = Options(
    NodeConfig,
    load_node,
    flags={"engines": "--engine", "model_sizes": "--model-size", **_WEB},
    variables={"engines": "PALEGREEN_ENGINE", "model_sizes": "PALEGREEN_MODEL_SIZE"},
    lists={
        "engines": ("URL", "URL of an inference server, repeatable; joined with those of the file. "),
        "model_sizes": ("NAME=MEMORY[xGPUS]", "Repeatable; replaces those of the file. "),
    },
    sections=NODE_SECTIONS,
)
EVALUATE = Options(
    EvaluateConfig,
    load_evaluate,
    flags=_WEB,
    metavars={
        "baseline": "DIR",
        "embedder": "NAME",
        "endpoint": "NAME",
        "model": "NAME",
        "namespace": "NAME",
        "pod": "NAME",
        "store": "FILE|none",
    },
    sections=EVALUATE_SECTIONS,
)
