"""`palegreen samples`: look at what the evaluator stored."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palegreen.cli.telling import refuse
from palegreen.runtime.log import configure

if TYPE_CHECKING:  # loaded by the command that needs it: the node daemon must not load SQLite
    from palegreen.evaluators.store.query import Filter, Reader, Stored

_TIME = "a duration before now (1h) or a time (RFC 3339)"
_OPTIONS = (
    click.option("--since", metavar="TIME", help=f"not older than {_TIME}"),
    click.option("--until", metavar="TIME", help=f"older than {_TIME}"),
    click.option("--model", metavar="NAME", help="of this model"),
    click.option("--endpoint", metavar="NAME", help="of this endpoint"),
    click.option("--replica", metavar="NAME", help="of this replica"),
    click.option("--session", metavar="ID", help="of this session"),
    click.option("--failed", metavar="[CHECK]", is_flag=False, flag_value="", help="that failed this check, or any"),
    click.option("--sampled", type=click.Choice(["rate", "kept"]), help="sampled at the rate, or kept for a reason"),
)
_STORE = click.option(
    "--store", metavar="FILE", envvar="PALEGREEN_STORE", help="the evaluator's store [variable: PALEGREEN_STORE]"
)


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def samples() -> None:
    """Look at the samples that the evaluator stored."""


@samples.command("list")
@_STORE
@_filtered
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="at most so many")
@click.option("--json", "as_json", is_flag=True, help="print a list of objects")
def list_samples(store: str | None, limit: int, as_json: bool, **given: str | None) -> None:
    """List samples, the newest first, with the beginning of each response. It leaves an audit line."""
    from palegreen.evaluators.store import render
    from palegreen.evaluators.store.audit import AuditError, audit

    wanted = _wanted(**given)
    with _reading(store) as (path, reader):
        found = reader.newest(wanted, limit)
        try:
            audit(path, "list", len(found), filter=wanted.given())
        except AuditError as refused:  # such as a copy that is mounted read-only
            click.echo(f"palegreen: texts are left out: {refused}", err=True)
            found = [replace(stored, record=stored.record | {"response": "", "tool_calls": []}) for stored in found]
    if as_json:
        click.echo(json.dumps([render.summary(stored) for stored in found], indent=2))
    elif found:
        click.echo(render.table(found, shutil.get_terminal_size((120, 24)).columns))
    else:
        click.echo("no sample matches", err=True)


@samples.command()
@_STORE
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="print the recorded object")
def show(store: str | None, name: str, as_json: bool) -> None:
    """Show the newest sample with this response id, trace id or @NUMBER (as listed). It leaves an audit line."""
    from palegreen.evaluators.store import render
    from palegreen.evaluators.store.audit import audit

    with _reading(store) as (path, reader):
        found = reader.find(name)
        if not found:
            refuse(f"{path}: there is no sample {name}", 1)
        audit(path, "show", 1, sample=f"@{found[0].seq}", id=found[0].id)
    click.echo(json.dumps(found[0].record, indent=2) if as_json else render.page(found[0]))
    if found[1:]:
        click.echo(f"also so called: {', '.join(f'@{stored.seq}' for stored in found[1:])}", err=True)


@samples.command()
@_STORE
@_filtered
@click.option("--out", required=True, metavar="FILE|DIR|URL", help="where to; - is standard output")
@click.option("--format", "form", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
def export(store: str | None, out: str, form: str, **given: str | None) -> None:
    """Write samples with their scores as JSON lines, or as Parquet by date and model. It leaves an audit line."""
    from palegreen.evaluators.store.audit import audit
    from palegreen.evaluators.store.export import writer

    wanted = _wanted(**given)
    with _reading(store) as (path, reader):
        if out == str(path) or (Path(out).exists() and Path(out).samefile(path)):
            refuse(f"--out {out}: is the store itself", 2)
        write = writer(form, out)
        count, last = reader.extent(wanted)
        audit(path, "export", count, filter=wanted.given(), out=out, format=form)
        write(_shown(reader.chunks(wanted, last), count), out)


def _shown(chunks: Iterator[list[Stored]], count: int) -> Iterator[list[Stored]]:
    """The chunks, with a progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield from chunks
        return
    with click.progressbar(length=count, label="samples", file=sys.stderr) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def _wanted(**given: str | None) -> Filter:
    from palegreen.evaluators.store.query import Filter, moment

    named: dict[str, Any] = dict(given)
    for name in ("since", "until"):
        if given[name] is not None:
            try:
                named[name] = moment(str(given[name]), time.time())
            except ValueError as refused:
                refuse(f"--{name}: {refused}", 2)
    return Filter(**named)


@contextmanager
def _reading(store: str | None) -> Iterator[tuple[Path, Reader]]:
    """The store's path and a reader of it; what cannot be done is one line and ends the command."""
    from palegreen.evaluators.store.audit import AuditError
    from palegreen.evaluators.store.export import ExportError
    from palegreen.evaluators.store.query import Reader, StoreError

    configure("info")
    if store in (None, "", "none"):
        refuse("no store: give --store FILE or the variable PALEGREEN_STORE", 2)
    path = Path(str(store))
    if not path.is_file():
        refuse(f"--store {path}: there is no such file", 2)
    try:
        with Reader(path) as reader:
            if reader.warning:
                click.echo(f"palegreen: {reader.warning}", err=True)
            yield path, reader
    except (AuditError, ExportError, StoreError) as refused:
        refuse(refused, 1)
