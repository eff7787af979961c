"""`palegreen demo`: the whole loop on one machine."""

from __future__ import annotations

import sys

import click


@click.group(invoke_without_command=True)
@click.option("--engine", "engine_url", metavar="URL", help="use this engine instead of the packaged llama.cpp")
@click.option("--port", default=9450, show_default=True, help="port of the node daemon; another if it is taken")
@click.option("--seconds", type=float, help="stop after so long; without it, Ctrl-C stops")
@click.option("--requests-per-second", default=1.5, show_default=True, help="traffic through all proxies together")
@click.pass_context
def demo(
    context: click.Context, engine_url: str | None, port: int, seconds: float | None, requests_per_second: float
) -> None:
    """Run three replicas of a real engine on CPU, each with its evaluator, the node daemon and a little traffic, and
    show what the metrics say."""
    if context.invoked_subcommand is not None:
        return
    from palegreen.demo.run import DemoError, run  # the daemon must not load the demo

    try:
        run(engine_url, port, seconds, requests_per_second)
    except DemoError as failure:
        click.echo(f"palegreen: {failure}", err=True)
        sys.exit(1)


@demo.command()
@click.argument("name")
@click.option("--replica", type=click.IntRange(1), metavar="N", help="which of the replicas  [default: the last]")
def fault(name: str, replica: int | None) -> None:
    """Bring a fault about in the demo that runs: other-weights, wrong-template, lost-system-prompt, or none."""
    from palegreen.demo.control import tell
    from palegreen.demo.faults import FAULTS

    if name not in FAULTS:
        raise click.BadParameter(f"{name!r}; allowed: {', '.join(FAULTS)}", param_hint="NAME")
    try:
        done, said = tell(f"{name} {replica}" if replica else name)
    except TimeoutError:
        click.echo("palegreen: the demo does not answer; look at what it prints", err=True)
        sys.exit(1)
    except OSError:
        click.echo("palegreen: no demo is running; start one: make run, or palegreen demo", err=True)
        sys.exit(1)
    click.echo(said if done else f"palegreen: {said}", err=not done)
    sys.exit(not done)
