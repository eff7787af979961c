"""`palegreen evaluate`: the sidecar."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from palegreen.cli.options import EVALUATE
from palegreen.cli.telling import refuse
from palegreen.runtime.log import configure
from palegreen.runtime.web import ListenError
from palegreen.runtime.yamlfile import ConfigError


@click.command()
@EVALUATE.decorate
@click.pass_context
def evaluate(context: click.Context, /, config: Path | None, **given: Any) -> None:
    """Run the sidecar: sample responses, score them, and never touch serving."""
    from palegreen.evaluators.evaluate import Evaluator  # the node daemon must not load it

    read = EVALUATE.loader(context, config, given)
    try:
        settings = read()
        configure(settings.log_level, settings.log_format)
        asyncio.run(Evaluator(settings, read, watched=config).run())
    except ConfigError as refused:
        refuse(refused, 2)
    except ListenError as refused:
        refuse(refused, 1)
