"""`palegreen baseline`: fit, inspect and version baselines."""

from __future__ import annotations

import time
from pathlib import Path

import click

from palegreen.cli.telling import ENGINE, bar, refusals

_FOLDER = click.Path(path_type=Path)


@click.group()
def baseline() -> None:
    """Fit, inspect and version baselines: what the responses of a model that is well look like."""


@baseline.command()
@click.argument("samples", type=_FOLDER, metavar="SAMPLES")
@click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="folder of baselines; the new one is DIR/ID")
@click.option(
    "--false-alarm-every",
    default="30d",
    show_default=True,
    metavar="30d|N",
    help="a false page is as seldom as this: a time, at the rate of the samples, or a number of samples",
)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    help="of the model, for a time [default: those that the samples name]",
)
@click.option("--embedder", help="minilm, static, or sentence-transformers:MODEL [default: the configuration's]")
@click.option(
    "--since", metavar="TIME", help="leave out samples before this: a time (RFC 3339), or a duration such as 2d ago"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of all that is drawn by lot")
@click.option(
    "--config",
    type=_FOLDER,
    metavar="FILE",
    help="the evaluator's: its redaction, checks, segments and embedder are used",
)
@ENGINE
def fit(
    samples: Path,
    out: Path,
    false_alarm_every: str,
    replicas: int | None,
    embedder: str | None,
    since: str | None,
    seed: int,
    config: Path | None,
    engine: str,
) -> None:
    """Fit a baseline to recorded samples: JSON lines, Parquet (a file or a folder), or the evaluator's store.

    The first baseline of a folder becomes its current one; later ones are candidates until they are promoted.
    """
    from palegreen.evaluators.baseline import command
    from palegreen.evaluators.baseline.registry import current, promote

    with refusals():
        made = command.fit(
            samples,
            out,
            false_alarm_every=false_alarm_every,
            replicas=replicas,
            embedder_name=embedder,
            seed=seed,
            config=config,
            on=engine,
            created=time.time(),
            bar=bar,
            since=_moment(since) if since is not None else None,
        )
        for remark in made.remarks:
            click.echo(f"note: {remark}", err=True)
        if made.known:
            click.echo("the same baseline was there already", err=True)
        if not current(out):
            promote(made.folder)
            click.echo("it is the first here, and the current one", err=True)
    click.echo(made.folder)


def _moment(text: str) -> float:
    from palegreen.evaluators.baseline.errors import BaselineError
    from palegreen.evaluators.store.query import moment

    try:
        return moment(text, time.time())
    except ValueError as refused:
        raise BaselineError(f"--since: {refused}") from None


@baseline.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="print the manifest")
def show(folder: Path, as_json: bool) -> None:
    """Show a baseline, or the current one of a folder of baselines."""
    from palegreen.evaluators.baseline import manifest, render
    from palegreen.evaluators.baseline.registry import arrays_of

    with refusals():
        shown = manifest.load(folder)
        if shown.arrays:
            arrays_of(folder)  # what cannot be used is not shown as if it could
    click.echo(shown.model_dump_json(indent=2) if as_json else render.page(shown, time.time()))


@baseline.command()
@click.argument("first", type=_FOLDER, metavar="DIR")
@click.argument("second", type=_FOLDER, metavar="DIR")
def compare(first: Path, second: Path) -> None:
    """Say what differs between two baselines, in words and figures."""
    from palegreen.evaluators.baseline import manifest
    from palegreen.evaluators.baseline.compare import compare as compared
    from palegreen.evaluators.baseline.registry import arrays_of

    with refusals():
        one, other = manifest.load(first), manifest.load(second)
        lines = compared(one, other, (arrays_of(first), arrays_of(second)))
    click.echo(f"{one.id} -> {other.id}")
    click.echo("\n".join(lines) or "nothing differs beyond chance")


@baseline.command()
@click.argument("folder", type=_FOLDER, metavar="DIR/ID")
def promote(folder: Path) -> None:
    """Make a baseline the current one of its folder. It leaves an audit line."""
    from palegreen.evaluators.baseline.registry import promote as promoted

    with refusals():
        before = promoted(folder)
    name = folder.resolve().name
    change = " already" if before == name else f", instead of {before}" if before else ""
    click.echo(f"{name} is current{change}")
