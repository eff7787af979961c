"""`palegreen backtest`: what would have alarmed, after how many samples, and why."""

from __future__ import annotations

import json
from pathlib import Path

import click

from palegreen.cli.telling import ENGINE, bar, refusals

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("samples", type=_FOLDER, metavar="SAMPLES")
@click.option("--baseline", required=True, type=_FOLDER, metavar="DIR", help="a baseline, or a folder of baselines")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.option("--html", type=_FOLDER, metavar="FILE", help="write a page with plots")
@click.option(
    "--config",
    type=_FOLDER,
    metavar="FILE",
    help="the evaluator's: its redaction, checks, segments and embedder are used [default: the baseline's embedder]",
)
@ENGINE
def backtest(samples: Path, baseline: Path, as_json: bool, html: Path | None, config: Path | None, engine: str) -> None:
    """Replay recorded samples through the evaluator's own detectors, in the order of the file.

    SAMPLES are JSON lines, Parquet (a file or a folder), or the evaluator's store.
    """
    from palegreen.evaluators.baseline.errors import BaselineError
    from palegreen.evaluators.drift.backtest import replay
    from palegreen.evaluators.drift.page import page
    from palegreen.evaluators.drift.render import lines

    with refusals("error"):
        replayed = replay(baseline, samples, config, bar, engine)
        if html is not None:
            try:
                html.write_text(page(replayed), encoding="utf-8")
            except OSError as refused:
                raise BaselineError(f"{html}: cannot be written: {refused.strerror}") from None
    click.echo(json.dumps(replayed.as_json(), indent=2) if as_json else "\n".join(lines(replayed)))
