"""`palegreen check`: preflight."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from palegreen.cli.options import NODE
from palegreen.exporter.check import Finding, findings
from palegreen.runtime.log import configure
from palegreen.runtime.yamlfile import ConfigError


@click.command()
@NODE.decorate
@click.option("--json", "as_json", is_flag=True, help="print a list of {check, ok, detail, fix}")
@click.pass_context
def check(context: click.Context, /, config: Path | None, as_json: bool, **given: Any) -> None:
    """Look whether this node has what `palegreen node` needs; exit 1 if anything is amiss."""
    configure("error")
    try:
        settings = NODE.loader(context, config, given)()
    except ConfigError as refused:
        found = [Finding("config", False, str(refused), "mend the configuration")]
        if as_json:
            click.echo(json.dumps([finding.as_dict() for finding in found]))
        else:
            _say(found[0])
        sys.exit(1)
    found = []
    for finding in findings(settings):
        found.append(finding)
        if not as_json:
            _say(finding)
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in found], indent=2))
    sys.exit(0 if all(finding.ok for finding in found) else 1)


def _say(finding: Finding) -> None:
    if finding.ok:
        click.echo(f"ok    {finding.check}: {finding.detail}")
    else:
        click.echo(f"FAIL  {finding.check}: {finding.detail} -> {finding.fix}")
