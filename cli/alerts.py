"""`palegreen alerts`: rules, routes and message templates as files."""

from __future__ import annotations

from pathlib import Path

import click

from palegreen.cli.generated import CHECK, OUT, put
from palegreen.cli.telling import refuse
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
        refuse(refused, 2)
    except UnknownNameError as refused:
        refuse(f"{config}: {refused}", 2)
    put(files, out, check)
