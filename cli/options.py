"""The flags of a configuration model: one per field, with a variable PALEGREEN_... of the same name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource

from palegreen.exporter.config import SECTIONS, NodeConfig, load

# The names that differ from the field's.
_FLAGS = {"engines": "--engine", "model_sizes": "--model-size", "web_config_file": "--web.config.file"}
_VARIABLES = {"engines": "PALEGREEN_ENGINE", "model_sizes": "PALEGREEN_MODEL_SIZE"}
_LISTS = {
    "engines": ("URL", "URL of an inference server, repeatable; joined with those of the file. "),
    "model_sizes": ("NAME=MEMORY[xGPUS]", "Repeatable; replaces those of the file. "),
}


def flag(key: str) -> str:
    """The flag of a configuration key."""
    return _FLAGS.get(key, "--" + key.replace("_", "-"))


def variable(key: str) -> str:
    """The environment variable of a configuration key."""
    return _VARIABLES.get(key, f"PALEGREEN_{key.upper()}")


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of NodeConfig, and `--config`."""
    for key, field in reversed(NodeConfig.model_fields.items()):
        if key in SECTIONS:
            continue
        default = "" if field.default in (None, []) else f" [default: {shown(key, field.default)}]"
        text = f"{field.description}{default}"
        if key in _LISTS:
            metavar, about = _LISTS[key]
            text = about + text
            option = click.option(flag(key), key, multiple=True, metavar=metavar, envvar=variable(key), help=text)
        elif field.annotation is bool:
            # the variable is left to `loader`: click would refuse a bad one without naming it
            option = click.option(f"{flag(key)}/--no-{flag(key)[2:]}", key, default=None, help=text)
        else:
            option = click.option(flag(key), key, envvar=variable(key), metavar=_metavar(key), help=text)
        command = option(command)
    path = click.Path(path_type=Path)
    return click.option("--config", type=path, envvar="PALEGREEN_CONFIG", help="configuration file (YAML)")(command)


def loader(context: click.Context, config: Path | None, given: dict[str, Any]) -> Callable[[], NodeConfig]:
    """A function that reads the configuration anew: flags over environment over file."""
    named = {key: os.environ.get(variable(key)) if value is None else value for key, value in given.items()}
    overrides = {key: value for key, value in named.items() if value not in (None, (), "")}
    origins = {
        key: flag(key) if context.get_parameter_source(key) is ParameterSource.COMMANDLINE else variable(key)
        for key in overrides
    }
    return lambda: load(config, overrides, origins)


def _metavar(key: str) -> str:
    annotation = NodeConfig.model_fields[key].annotation
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    kinds = {
        "address": "HOST:PORT",
        "dcgm": "URL",
        "interval": "DURATION",
        "timeout": "DURATION",
        "limit": "SIZE",
        "mappings": "DIR",
        "root": "DIR",
        "dir": "DIR",
    }
    return kinds.get(key.rpartition("_")[2], "FILE")


def shown(key: str, value: object) -> str:
    """A default as people write it."""
    if key.endswith("_limit") and isinstance(value, int):
        return f"{value >> 20}MiB"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}s" if isinstance(value, float) else str(value)
