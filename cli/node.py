"""`palegreen node`: the per-node daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from palegreen.cli.options import NODE
from palegreen.cli.telling import refuse
from palegreen.exporter.node import Node
from palegreen.runtime.log import configure
from palegreen.runtime.web import ListenError
from palegreen.runtime.yamlfile import ConfigError


@click.command()
@NODE.decorate
@click.option("--once", is_flag=True, help="print one exposition and exit")
@click.pass_context
def node(context: click.Context, /, config: Path | None, once: bool, **given: Any) -> None:
    """Run the per-node daemon: GPUs and inference engines in one canonical set of metrics."""
    read = NODE.loader(context, config, given)
    try:
        settings = read()
        configure(settings.log_level, settings.log_format)
        daemon = Node(settings, read, watched=config)
        if once:
            click.echo(daemon.once().decode(), nl=False)
        else:
            asyncio.run(daemon.run())
    except ConfigError as refused:
        refuse(refused, 2)
    except ListenError as refused:
        refuse(refused, 1)
