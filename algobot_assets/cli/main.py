"""The `algobot` command: its commands, and errors as one sentence on standard error with exit code 1."""

from __future__ import annotations

import os
import sys

import click

from algobot_assets import __version__
from algobot_assets.cli.commands import (
    apply,
    archive,
    backfill,
    database,
    demo,
    diff,
    explain,
    refresh,
    report,
    research,
    status,
    up,
    verify,
)
from algobot_assets.cli.output import FAILED, INTERRUPTED, say
from algobot_assets.errors import AlgobotError

#: The commands by what a person wants, in the order of `algobot --help`, each with the line it gets there.
SECTIONS: dict[str, tuple[tuple[click.Command, str], ...]] = {
    "Run": (
        (demo.demo, "From nothing to backtests, and a summary"),
        (up.up, "Start the UI and the daemon"),
        (backfill.backfill, "Materialise days"),
        (apply.apply, "Store what algobot.yaml declares"),
        (refresh.refresh, "Fetch what is new, compute again what is stale"),
    ),
    "Look": (
        (status.status, "What is stored, how fresh it is, the newest results"),
        (report.report, "Write a page per strategy, and one that compares them"),
        (diff.diff, "Where two strategies or versions part, and why"),
        (explain.explain, "Where a trade comes from, down to the source file"),
    ),
    "Try": (
        (research.try_, "Backtest the strategy of a Python file; nothing is written"),
        (research.sweep, "Backtest every combination of parameters, and rank them"),
        (research.walk_forward, "Choose parameters on past days, try them on the next"),
    ),
    "Prove and keep": (
        (verify.verify, "Compute days again into nothing, compare bit by bit"),
        (archive.retention, "Move old months to the archive"),
        (archive.restore, "Bring archived months back"),
        (database.db, "The database: start, stop, status, migrate, schema"),
    ),
}


class _Sections(click.Group):
    """Lists the commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, aligned with each other."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{command.name:<12}", text) for command, text in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="algobot")
@click.option("--traceback", is_flag=True, help="Show where an error arose, not only its sentence.")
@click.pass_context
def cli(context: click.Context, traceback: bool) -> None:
    """The data platform of a trading bot for Binance.

    Candles come in; indicators, signals, trades, metrics and backtests come out, as date-partitioned Dagster
    assets in PostgreSQL. `algobot demo` shows all of it.

    Commands that report something take --json. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the database is not
    running, 4 something is stale, 5 a difference or a look-ahead was found.
    """
    context.obj = {"traceback": traceback}


for _commands in SECTIONS.values():
    for _command, _ in _commands:
        cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: errors end it with one sentence, unless --traceback stands before the
    command."""
    # Dagster reads these when it is imported by a command
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(given, prog_name="algobot", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        say("Interrupted; what was written so far is complete and stays.")
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if "--traceback" in given:
            raise
        if isinstance(error, AlgobotError):
            say(f"algobot: {error}")
        else:
            say(
                f"algobot: an error in the program itself, {type(error).__name__}: {error}\n"
                "`algobot --traceback ...` shows where; please report it."
            )
        sys.exit(FAILED)
    if isinstance(code, int):  # what a command gave to Exit
        sys.exit(code)
