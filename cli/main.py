"""The `palegreen` command."""

from __future__ import annotations

import click

from palegreen.cli.alerts import alerts
from palegreen.cli.backtest import backtest
from palegreen.cli.baseline import baseline
from palegreen.cli.canary import canary
from palegreen.cli.check import check
from palegreen.cli.dashboards import dashboards
from palegreen.cli.demo import demo
from palegreen.cli.evaluate import evaluate
from palegreen.cli.node import node
from palegreen.cli.samples import samples
from palegreen.exporter.node import VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="palegreen")
def main() -> None:
    """Inference observability exporter and quality-drift monitor."""


main.add_command(node)
main.add_command(evaluate)
main.add_command(baseline)
main.add_command(canary)
main.add_command(backtest)
main.add_command(alerts)
main.add_command(check)
main.add_command(dashboards)
main.add_command(demo)
main.add_command(samples)

if __name__ == "__main__":
    main()
