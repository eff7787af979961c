"""`palegreen dashboards`: Grafana's dashboards as files."""

from __future__ import annotations

from pathlib import Path

import click

from palegreen.cli.generated import CHECK, OUT, put
from palegreen.cli.telling import refuse


@click.group()
def dashboards() -> None:
    """Dashboards for Grafana 10.4 to 12."""


@dashboards.command()
@OUT
@CHECK
def build(out: Path, check: bool) -> None:
    """Write one file for each dashboard, the same bytes each time."""
    try:
        from palegreen.dashboards.build import build as built
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("palegreen"):
            raise
        refuse(f"dashboards need the package {missing.name}: pip install 'palegreen[dashboards]'", 2)
    put({f"{uid}.json": content for uid, content in built().items()}, out, check, mine="palegreen-*.json")
