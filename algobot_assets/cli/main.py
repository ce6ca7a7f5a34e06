"""The `algobot` command: its commands, and errors as one sentence on standard error with exit code 1."""

from __future__ import annotations

import os
import sys

import click

from algobot_assets import __version__
from algobot_assets.cli import archiving, comparing, database, explaining, keeping, reporting, running, trying
from algobot_assets.errors import AlgobotError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="algobot")
@click.option("--traceback", is_flag=True, help="Show where an error arose, not only its sentence.")
@click.pass_context
def cli(context: click.Context, traceback: bool) -> None:
    """The data platform of a trading bot for Binance.

    Candles come in; indicators, signals, trades, metrics and backtests come out, as date-partitioned Dagster
    assets in PostgreSQL. `algobot demo` shows all of it.
    """
    context.obj = {"traceback": traceback}


cli.add_command(running.demo)
cli.add_command(running.up)
cli.add_command(running.backfill)
cli.add_command(running.apply)
cli.add_command(keeping.refresh)
cli.add_command(keeping.verify)
cli.add_command(keeping.status)
cli.add_command(explaining.explain)
cli.add_command(reporting.report)
cli.add_command(comparing.diff)
cli.add_command(archiving.retention)
cli.add_command(archiving.restore)
cli.add_command(trying.sweep)
cli.add_command(trying.walk_forward)
cli.add_command(trying.try_)
cli.add_command(database.db)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    # Dagster reads these when it is imported by a command
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    try:
        code = cli.main(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit("Interrupted; what was written so far is complete and stays.")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AlgobotError as error:
        if "--traceback" in (arguments or sys.argv):
            raise
        click.echo(f"algobot: {error}", err=True)
        sys.exit(1)
    if isinstance(code, int):  # what a command gave to Exit
        sys.exit(code)
