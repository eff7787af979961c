"""Generated files: written, or compared with what would be written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from palegreen.cli.telling import refuse

OUT = click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="where the files are")
CHECK = click.option(
    "--check",
    is_flag=True,
    help="write nothing; exit 1 if a file that would be written is missing or differs, or an older one is left over",
)


def put(files: Mapping[str, bytes], out: Path, check: bool, mine: str = "") -> None:
    """Write the files into `out`, or say how those there differ and exit 1. Ends the command with 2 if it cannot.

    Args:
        files: contents by name.
        mine: pattern of names that nothing else writes there: one that is not among `files` is left over.
    """
    try:
        if check:
            drift = list(_drift(files, out, mine))
            for line in drift:
                click.echo(f"palegreen: {line}", err=True)
            sys.exit(1 if drift else 0)
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as refused:
        refuse(f"{refused.filename}: {refused.strerror}", 2)


def _drift(files: Mapping[str, bytes], out: Path, mine: str) -> Iterator[str]:
    for name, content in files.items():
        path = out / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.read_bytes() != content:
            yield f"{path}: differs from what is built"
    for path in sorted(out.glob(mine)) if mine else ():
        if path.name not in files:
            yield f"{path}: left over, nothing of this name is built"
