"""Commands that keep what is stored right: status, refresh, verify."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import click

from algobot_assets.cli.database import prepare
from algobot_assets.cli.output import DIFFERS, STALE, emit, json_option, say
from algobot_assets.cli.running import Day, Ran, choose_source, run_range
from algobot_assets.cli.show import grid, watched
from algobot_assets.schema.intervals import consecutive
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.store.connection import Store


@click.command()
@json_option
def status(as_json: bool) -> None:
    """What is stored, how fresh it is, the newest results, and the database's health.

    Exits with 4 where something is stale.
    """
    from algobot_assets.cli.summary import Summary, health_document, show_health
    from algobot_assets.code import register_code
    from algobot_assets.freshness import stale_counts
    from algobot_assets.store import health
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        register_code(store)
        summary = Summary.read(store)
        counts = stale_counts(store)
        measured = health.measure(store, [settings.dagster_database])
        before = health.before(store, timedelta(days=7))
    judged = list(health.judge(measured))
    if as_json:
        figures = health_document(measured, before)
        emit({**summary.document(), "health": figures, "warnings": judged, "stale": counts})
    else:
        summary.show()
        show_health(measured, before)
        for sentence in judged:
            say(f"Look at this: {sentence}")
        if counts.is_empty():
            click.echo("Nothing is stale.")
        else:
            grid(counts, "Stale partitions; algobot refresh computes them again")
    if not counts.is_empty():
        raise click.exceptions.Exit(STALE)


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
    from algobot_assets.code import register_code
    from algobot_assets.feed.open import open_source
    from algobot_assets.freshness import due, edited_days
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
                today = opened.server_time().date()
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
    from algobot_assets.freshness import due, first_incomplete, recorded_days
    from algobot_assets.resources import StateResource

    known, stale = recorded_days(store), due(store)
    new = [m.start for m in StateResource().load().markets if (m.symbol, m.interval) not in known]
    days = [first_incomplete(store), stale.first if stale else None, *new]
    return min((day for day in days if day is not None), default=None)


def _take_replaced(settings: Settings, store: Store) -> list[Ran]:
    """Name the files that have been replaced since they were loaded, and fetch their days again."""
    from algobot_assets.assets.republished import republished
    from algobot_assets.feed.open import open_source

    with open_source(settings) as opened:
        compared = republished(store, opened)
    say(f"{compared.checked:,} of {compared.files:,} loaded files compared with their published checksums.")
    for item in compared.replaced:
        say(f"Replaced: {item.name} ({item.symbol} {item.interval}), {item.days[0]} to {item.days[-1]}")
    return [
        run_range(settings, run[0], run[-1], ("market_data",), market_data={"check_archives": True})
        for run in consecutive(compared.days)
    ]


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
@json_option
def verify(first: date, last: date | None, as_json: bool) -> None:
    """Compute the days FIRST to LAST again into nothing and compare with what is stored, bit by bit.

    Exits with 5 at a difference, and names the first of each table.
    """
    from algobot_assets.store.connection import Store
    from algobot_assets.verify import verify as verify_days

    settings = Settings()
    prepare(settings)
    found = []
    with Store.open(settings) as store:
        for finding in watched(verify_days(store, first, last or first), "computing again"):
            found.append(finding)
            if not as_json:
                words = f"{finding.table:<20} {finding.days:>7,} days {finding.rows:>11,} rows  "
                click.echo(words + ("equal" if finding.difference is None else f"DIFFERS\n  {finding.difference}"))
    equal = all(finding.difference is None for finding in found)
    if as_json:
        emit({"first": first, "last": last or first, "equal": equal, "tables": [vars(each) for each in found]})
    if not equal:
        raise click.exceptions.Exit(DIFFERS)
