"""`algobot demo`: set up everything and compute backtests."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.days import Day, choose_days
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.cli.range_run import run_range
from algobot_assets.cli.source_choice import choose_source
from algobot_assets.settings import Settings, require_project


@click.command()
@click.option("--source", help="binance, simulated, or a folder of klines. Default: binance if reachable.")
@click.option("--from", "first", type=Day(), help="First day. Default: the earliest start in algobot.yaml.")
@click.option("--to", "last", type=Day(), help="Last day. Default: today.")
@json_option
def demo(source: str | None, first: date | None, last: date | None, as_json: bool) -> None:
    """Go from nothing to backtests: database, candles, all nine tables, a summary.

    Uses the markets and strategies of algobot.yaml. A second run computes only new data.
    """
    from algobot_assets.cli.summary import Summary
    from algobot_assets.store.connection import Store

    require_project()
    settings = choose_source(source, ask_again=True)
    say(f"PostgreSQL: {_where(settings)}")
    prepare(settings)
    with Store.open(settings) as store:
        days = choose_days(settings, store, first, last)
    ran = run_range(settings, days.first, days.last)
    with Store.open(settings) as store:
        summary = Summary.read(store)
    if as_json:
        emit({"runs": [ran], **summary.document()})
        return
    summary.show()
    program = _program()
    click.echo("Next:")
    click.echo(f"  {program} up               the UI, at http://127.0.0.1:3000")
    click.echo(f"  {program} report --open    a page per strategy")
    click.echo(f"  {program} --help           everything else")


def _program() -> str:
    """Return the command line that starts algobot from the current folder."""
    program = Path(sys.executable).parent / "algobot"
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)


def _where(settings: Settings) -> str:
    return "the server of ALGOBOT_DATABASE_URL" if settings.database_url else f"embedded, in {settings.home}"
