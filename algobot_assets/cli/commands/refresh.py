"""`algobot refresh`: fetch what is new, compute again what is stale."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.output import STALE, emit, json_option, say
from algobot_assets.cli.range_run import Ran, run_range
from algobot_assets.cli.source_choice import choose_source
from algobot_assets.schema.intervals import consecutive
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.store.connection import Store


@click.command()
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--stored-only", is_flag=True, help="Fetch nothing; only compute again what is stale.")
@click.option("--from-source", is_flag=True, help="Fetch candles changed by hand again, as the source has them.")
@click.option("--check-archives", is_flag=True, help="Fetch again what Binance's archive has replaced since.")
@json_option
def refresh(source: str | None, stored_only: bool, from_source: bool, check_archives: bool, as_json: bool) -> None:
    """Fetch what is new and compute again what is stale, oldest first.

    Exits with 4 where something stays stale.
    """
    from algobot_assets.audit.staleness import due, edited_days
    from algobot_assets.feed.open import open_source
    from algobot_assets.pipeline.code_versions import register_code
    from algobot_assets.schema.tables import NINE
    from algobot_assets.store.connection import Store

    settings = Settings() if stored_only else choose_source(source)
    prepare(settings)
    ran: list[Ran] = []
    with Store.open(settings) as store:
        register_code(store)
        if from_source:
            for day in edited_days(store):
                ran.append(run_range(settings, day, day, ("market_data",), market_data={"from_source": True}))
        if check_archives:
            ran += _take_replaced(settings, store)
        if not stored_only:
            first = _first_wanted(store)
            with open_source(settings) as opened:
                # at midnight nothing of the new day is known yet
                today = (opened.server_time() - timedelta(microseconds=1)).date()
            if first is not None and first <= today:
                ran.append(run_range(settings, first, today, NINE))
        run = due(store)
        if run is not None:
            say(f"Due: {run.reason}.")
            ran.append(run_range(settings, run.first, run.last, run.tables))
        left = None if run is None else due(store)
    if as_json:
        emit({"runs": ran, "stale": None if left is None else left.reason})
    elif left is None:
        click.echo("Nothing is stale.")
    if left is not None:
        say(f"Still stale: {left.reason}; see `algobot status`.")
        raise click.exceptions.Exit(STALE)


def _first_wanted(store: Store) -> date | None:
    """The first day that is incomplete, stale, or of a declared market that has no candles yet."""
    from algobot_assets.audit.staleness import due, first_incomplete, recorded_days
    from algobot_assets.declared.state_file import StateFile

    known, stale = recorded_days(store), due(store)
    new = [m.start for m in StateFile().load().markets if (m.symbol, m.interval) not in known]
    days = [first_incomplete(store), stale.first if stale else None, *new]
    return min((day for day in days if day is not None), default=None)


def _take_replaced(settings: Settings, store: Store) -> list[Ran]:
    """Name the files that have been replaced since they were loaded, and fetch their days again."""
    from algobot_assets.feed.open import open_source
    from algobot_assets.pipeline.republished import republished

    with open_source(settings) as opened:
        compared = republished(store, opened)
    say(f"{compared.checked:,} of {compared.files:,} loaded files compared with their published checksums.")
    for item in compared.replaced:
        say(f"Replaced: {item.name} ({item.symbol} {item.interval}), {item.days[0]} to {item.days[-1]}")
    return [
        run_range(settings, run[0], run[-1], ("market_data",), market_data={"check_archives": True})
        for run in consecutive(compared.days)
    ]
