"""`palegreen alerts`: rules, routes and message templates as files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from palegreen.cli.generated import CHECK, OUT, put
from palegreen.runtime.yamlfile import ConfigError, load


@click.group()
def alerts() -> None:
    """Rules for Prometheus and routes for Alertmanager."""


@alerts.command()
@OUT
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="thresholds, models, receivers (docs/alerts.md)"
)
@CHECK
def build(out: Path, config: Path | None, check: bool) -> None:
    """Write rules.yaml, alertmanager.yaml and its template, and alertmanagerconfig.yaml for the operator."""
    from palegreen.alerts.build import build as built
    from palegreen.alerts.config import AlertsConfig
    from palegreen.alerts.rules import UnknownNameError

    try:
        files = built(AlertsConfig() if config is None else load(config, AlertsConfig))
    except ConfigError as refused:
        _refuse(str(refused))
    except UnknownNameError as refused:
        _refuse(f"{config}: {refused}")
    put(files, out, check)


def _refuse(line: str) -> None:
    click.echo(f"palegreen: {line}", err=True)
    sys.exit(2)
