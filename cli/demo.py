"""`palegreen demo`: the whole loop on one machine."""

from __future__ import annotations

import sys

import click

from palegreen.cli.telling import refuse


def _faults(_context: click.Context, _parameter: click.Parameter, given: str | None) -> list[str]:
    from palegreen.demo.faults import FAULTS

    known = [name for name, fault in FAULTS.items() if fault.expected]
    names = known if given == "all" else [name.strip() for name in given.split(",")] if given else []
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r}; allowed: all, or some of {', '.join(known)}")
    return names


@click.group(invoke_without_command=True)
@click.option("--engine", "engine_url", metavar="URL", help="use this engine instead of the packaged llama.cpp")
@click.option("--port", default=9450, show_default=True, help="port of the node daemon; another if it is taken")
@click.option("--seconds", type=float, help="stop after so long; without it, Ctrl-C stops")
@click.option("--requests-per-second", default=1.5, show_default=True, help="traffic through all proxies together")
@click.option("--alerts/--no-alerts", default=True, help="with Prometheus, Alertmanager and pages  [default: yes]")
@click.option(
    "--script",
    metavar="NAME[,NAME]|all",
    callback=_faults,
    help="a clean run, then these faults, unattended; prints who was told what and when, exits 1 if that was not right",
)
@click.pass_context
def demo(
    context: click.Context,
    engine_url: str | None,
    port: int,
    seconds: float | None,
    requests_per_second: float,
    alerts: bool,
    script: list[str],
) -> None:
    """Run three replicas of a real engine on CPU, each with its evaluator, the node daemon, Prometheus, Alertmanager
    and a little traffic, and show what the metrics say and who is told what."""
    if context.invoked_subcommand is not None:
        return
    if script and not alerts:
        raise click.UsageError("--script with --no-alerts: a script needs Prometheus and Alertmanager")
    from palegreen.demo.run import run  # the daemon must not load the demo
    from palegreen.demo.started import DemoError

    try:
        sys.exit(not run(engine_url, port, seconds, requests_per_second, alerts=alerts, script=script))
    except DemoError as failure:
        refuse(failure, 1)


@demo.command()
@click.argument("name")
@click.option("--replica", type=click.IntRange(1), metavar="N", help="which of the replicas  [default: the last]")
def fault(name: str, replica: int | None) -> None:
    """Bring a fault about in the demo that runs: other-weights, wrong-template, lost-system-prompt, engine-killed,
    engine-hung, queue, gpu-lost, evaluator-killed, or none."""
    from palegreen.demo.control import tell
    from palegreen.demo.faults import FAULTS

    if name not in FAULTS:
        raise click.BadParameter(f"{name!r}; allowed: {', '.join(FAULTS)}", param_hint="NAME")
    try:
        done, said = tell(f"{name} {replica}" if replica else name)
    except TimeoutError:
        refuse("the demo does not answer; look at what it prints", 1)
    except OSError:
        refuse("no demo is running; start one: make run, or palegreen demo", 1)
    click.echo(said if done else f"palegreen: {said}", err=not done)
    sys.exit(not done)
