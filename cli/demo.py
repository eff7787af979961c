"""`palegreen demo`: the whole loop on one machine."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--engine", "engine_url", metavar="URL", help="use this engine instead of the packaged llama.cpp")
@click.option("--port", default=9450, show_default=True, help="port of the node daemon; another if it is taken")
@click.option("--seconds", type=float, help="stop after so long; without it, Ctrl-C stops")
@click.option("--requests-per-second", default=1.0, show_default=True, help="traffic through the proxy")
def demo(engine_url: str | None, port: int, seconds: float | None, requests_per_second: float) -> None:
    """Run a real engine on CPU, the node daemon, the evaluator and a little traffic, and show what the metrics say."""
    from palegreen.demo.run import DemoError, run  # the daemon must not load the demo

    try:
        run(engine_url, port, seconds, requests_per_second)
    except DemoError as failure:
        click.echo(f"palegreen: {failure}", err=True)
        sys.exit(1)
