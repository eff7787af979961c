"""`palegreen dashboards`: Grafana's dashboards as files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import click

_PATTERN = "palegreen-*.json"


@click.group()
def dashboards() -> None:
    """Dashboards for Grafana 10.4 to 12."""


@dashboards.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="where <uid>.json are")
@click.option("--check", is_flag=True, help="write nothing; exit 1 if a file is missing, differs or is left over")
def build(out: Path, check: bool) -> None:
    """Write one file for each dashboard, the same bytes each time."""
    try:
        from palegreen.dashboards.build import build as built
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("palegreen"):
            raise
        _refuse(f"dashboards need the package {missing.name}: pip install 'palegreen[dashboards]'", 2)
    files = {f"{uid}.json": content for uid, content in built().items()}
    try:
        if check:
            drift = list(_drift(out, files))
            for line in drift:
                click.echo(f"palegreen: {line}", err=True)
            sys.exit(1 if drift else 0)
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as refused:
        _refuse(f"{refused.filename}: {refused.strerror}", 2)


def _drift(out: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    """One line for each file that is not as it would be written."""
    for name, content in files.items():
        path = out / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.read_bytes() != content:
            yield f"{path}: differs from what is built"
    for path in sorted(out.glob(_PATTERN)):
        if path.name not in files:
            yield f"{path}: left over, no dashboard of this name is built"


def _refuse(line: str, status: int) -> NoReturn:
    click.echo(f"palegreen: {line}", err=True)
    sys.exit(status)
