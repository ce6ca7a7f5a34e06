"""The `algobot` command group. It reports an error as one sentence on standard error, with exit code 1."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

import click

from algobot_assets import __version__
from algobot_assets.cli import interrupts
from algobot_assets.cli.commands import (
    apply,
    archive,
    backfill,
    database,
    demo,
    diff,
    explain,
    gaps,
    init,
    refresh,
    report,
    research,
    status,
    up,
    verify,
)
from algobot_assets.cli.output import FAILED, say
from algobot_assets.errors import AlgobotError

#: The commands by purpose, in the order of `algobot --help`, each with its line there.
SECTIONS: dict[str, tuple[tuple[click.Command, str], ...]] = {
    "Run": (
        (init.init, "Create a project"),
        (demo.demo, "From nothing to backtests in one command"),
        (up.up, "Start the UI and the daemon"),
        (backfill.backfill, "Fetch and compute a range of days"),
        (apply.apply, "Store what algobot.yaml declares"),
        (refresh.refresh, "Fetch new candles, recompute what is stale"),
    ),
    "Look": (
        (status.status, "Show stored data, freshness and the newest results"),
        (report.report, "Write a page per strategy and a comparison"),
        (diff.diff, "Show where two strategies or versions diverge"),
        (explain.explain, "Trace a trade back to its source file"),
    ),
    "Try": (
        (research.try_, "Backtest a strategy from a file; store nothing"),
        (research.sweep, "Backtest combinations of parameters and rank them"),
        (research.walk_forward, "Choose parameters on past days, test on the next"),
    ),
    "Prove and keep": (
        (verify.verify, "Recompute days, compare with the database bit by bit"),
        (gaps.gaps, "List missing candles; accept what nobody can supply"),
        (archive.retention, "Move old months to the archive"),
        (archive.restore, "Restore archived months"),
        (database.db, "Start, stop, inspect and migrate the database"),
    ),
}


class _Sections(click.Group):
    """A command group whose help lists the commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, aligned with each other."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{command.name:<12}", text) for command, text in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="algobot")
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, traceback: bool) -> None:
    """Run the data platform of a trading bot for Binance.

    It turns candles into indicators, signals, trades, metrics and backtests: date-partitioned Dagster assets in
    PostgreSQL. To see it all, run `algobot demo`.

    Most commands take --json. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the database is not running, 4 something
    is stale, 5 a difference or a look-ahead was found, 130 interrupted.
    """
    context.obj = {"traceback": traceback}


for _commands in SECTIONS.values():
    for _command, _ in _commands:
        cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit. Errors are shown as one sentence, or as a traceback after `algobot --traceback`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a symbol may have letters that the terminal cannot show
    # Dagster reads these when a command imports it
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(given, prog_name="algobot", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _end_interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of the output, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if interrupts.was_received():  # a library turned the interrupt into an error of its own
            _end_interrupted()
        if "--traceback" in given:
            raise
        if isinstance(error, AlgobotError):
            say(f"algobot: {error}")
        else:
            say(
                f"algobot: internal error, {type(error).__name__}: {error}\n"
                "Run `algobot --traceback ...` to see where, and please report it."
            )
        sys.exit(FAILED)
    if interrupts.was_received():
        _end_interrupted()
    if isinstance(code, int):  # the exit code that a command passed to click's Exit
        sys.exit(code)


def _end_interrupted() -> NoReturn:
    interrupts.print_message()
    sys.exit(interrupts.INTERRUPTED)
