"""What commands have in common: where they work, how they tell how far they are, what they refuse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from palegreen.runtime.log import Level, configure
from palegreen.runtime.yamlfile import ConfigError

ENGINE = click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="where redaction and embedding are done: here, or on Ray, of Parquet [RAY_ADDRESS: the cluster]",
)


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, and a line there where the total is not known."""
    if not sys.stderr.isatty():
        yield lambda _: None
    elif not total:
        click.echo(f"{label} ...", err=True)
        yield lambda _: None
    else:
        with click.progressbar(length=total, label=label, file=sys.stderr) as shown:
            yield shown.update


@contextmanager
def refusals(level: Level = "warning") -> Iterator[None]:
    """What cannot be done is one line, and ends the command. `level` is the least that is logged."""
    from palegreen.evaluators.baseline.errors import BaselineError
    from palegreen.evaluators.embed.embedder import EmbedderError
    from palegreen.evaluators.store.audit import AuditError

    configure(level)
    try:
        yield
    except (BaselineError, ConfigError, EmbedderError) as refused:
        refuse(refused, 2)
    except AuditError as refused:
        refuse(refused, 1)


def refuse(line: object, status: int) -> NoReturn:
    """End the command with one line: status 2 where what was given is wrong, 1 where it could not be done."""
    click.echo(f"palegreen: {line}", err=True)
    sys.exit(status)
