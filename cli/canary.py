"""`palegreen canary`: what a replica that is well answers."""

from __future__ import annotations

import time
from pathlib import Path

import click

from palegreen.cli.telling import bar, refuse
from palegreen.runtime.log import configure
from palegreen.runtime.yamlfile import ConfigError

_FILE = click.Path(path_type=Path)


@click.group()
def canary() -> None:
    """Fixed questions that are put straight to a replica: record what it answers while it is well."""


@canary.command()
@click.option("--url", required=True, metavar="URL", help="the replica itself, http(s)://HOST:PORT, never a balancer")
@click.option("--out", required=True, type=_FILE, metavar="FILE", help="the reference to write")
@click.option("--prompts", default="built-in", show_default=True, metavar="FILE", help="questions (YAML)")
@click.option("--model", default="", metavar="NAME", help="to ask for [default: the one that the engine lists]")
@click.option(
    "--repeat", type=click.IntRange(2, 100), default=5, show_default=True, help="answers to each at temperature 0"
)
@click.option(
    "--sampled",
    type=click.IntRange(0, 100),
    default=4,
    show_default=True,
    help="answers to each at the temperature of the set of questions",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="of one answer; the first that takes longer ends it",
)
@click.option("--api-key-file", type=_FILE, metavar="FILE", help="secret for the engine")
@click.option(
    "--api-key-header", default="authorization", show_default=True, metavar="NAME", help="header of the secret"
)
@click.option("--ca-file", type=_FILE, metavar="FILE", help="certificate authority of an https URL")
@click.option("--force", is_flag=True, help="write over a reference that is there")
def record(
    url: str,
    out: Path,
    prompts: str,
    model: str,
    repeat: int,
    sampled: int,
    timeout: float,
    api_key_file: Path | None,
    api_key_header: str,
    ca_file: Path | None,
    force: bool,
) -> None:
    """Ask a replica that is well and write what it answers, for `canary.reference`."""
    from palegreen.evaluators.probes.chat import Chat
    from palegreen.evaluators.probes.client import replica
    from palegreen.evaluators.probes.record import Plan, RecordError
    from palegreen.evaluators.probes.record import record as recorded

    configure("warning")
    try:
        chat = Chat(replica(url, api_key_file=api_key_file, api_key_header=api_key_header, ca_file=ca_file))
        plan = Plan(repeat, sampled, model, timeout)
        made = recorded(chat, prompts, out, plan, force=force, created=time.time(), bar=bar)
    except ConfigError as refused:
        refuse(refused, 2)
    except RecordError as failed:
        refuse(failed, 1)
    for name, why in made.left_out.items():
        click.echo(f"note: {name} is left out: {why}", err=True)
    if not chat.has_logprobs:
        click.echo("note: the engine tells no logprobs; texts alone will be compared", err=True)
    differ = [case.prompt.name for case in made.cases if len({answer.text for answer in case.greedy}) > 1]
    if differ:
        click.echo(f"note: answers at temperature 0 differ among themselves: {', '.join(differ)}", err=True)
    if len(made.cases) > 1 and len({answer.text for case in made.cases for answer in case.greedy}) == 1:
        click.echo("note: every question got the same answer; is this the model, and is it well?", err=True)
    click.echo(f"{out}: {made.id}, {len(made.cases)} questions to {made.model}")
