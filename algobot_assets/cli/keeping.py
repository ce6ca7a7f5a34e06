"""Commands that keep what is stored right: status, refresh, verify."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import click

from algobot_assets.cli.database import prepare
from algobot_assets.cli.running import Day, choose_source, run_range
from algobot_assets.cli.show import grid, show_health, show_summary
from algobot_assets.schema.intervals import consecutive
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.store.connection import Store


@click.command()
def status() -> None:
    """What is stored, how fresh it is, each strategy's newest result, and the database's health.

    Exits with 4 where something is stale.
    """
    from algobot_assets.code import register_code
    from algobot_assets.freshness import stale_counts
    from algobot_assets.store import health
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    show_summary(settings)
    with Store.open(settings) as store:
        register_code(store)
        counts = stale_counts(store)
        measured = health.measure(store, [settings.dagster_database])
        show_health(measured, health.before(store, timedelta(days=7)))
        for sentence in health.judge(measured):
            click.echo(f"Look at this: {sentence}", err=True)
    if counts.is_empty():
        click.echo("Nothing is stale.")
        return
    grid(counts, "Stale partitions; algobot refresh computes them again")
    raise click.exceptions.Exit(4)


@click.command()
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--stored-only", is_flag=True, help="Fetch nothing; only compute again what is stale.")
@click.option("--from-source", is_flag=True, help="Fetch candles changed by hand again, as the source has them.")
@click.option("--check-archives", is_flag=True, help="Fetch again what Binance's archive has replaced since.")
def refresh(source: str | None, stored_only: bool, from_source: bool, check_archives: bool) -> None:
    """Fetch what is new and compute again what is stale, oldest first."""
    from algobot_assets.code import register_code
    from algobot_assets.feed.open import open_source
    from algobot_assets.freshness import due, edited_days, first_incomplete
    from algobot_assets.schema.tables import NINE
    from algobot_assets.store.connection import Store

    settings = Settings() if stored_only else choose_source(source)
    prepare(settings)
    with Store.open(settings) as store:
        register_code(store)
        if from_source:
            for day in edited_days(store):
                run_range(settings, day, day, ("market_data",), market_data={"from_source": True})
        if check_archives:
            _take_replaced(settings, store)
        if not stored_only:
            first = first_incomplete(store)
            with open_source(settings) as opened:
                today = opened.server_time().date()
            if first is not None and first <= today:
                run_range(settings, first, today, NINE)
        run = due(store)
        if run is not None:
            click.echo(f"Due: {run.reason}.")
            run_range(settings, run.first, run.last, run.tables)
        left = due(store)
    if left is None:
        click.echo("Nothing is stale.")
    else:
        click.echo(f"Still stale: {left.reason}; see `algobot status`.", err=True)
        raise click.exceptions.Exit(4)


def _take_replaced(settings: Settings, store: Store) -> None:
    """Name the files that have been replaced since they were loaded, and fetch their days again."""
    from algobot_assets.assets.republished import republished
    from algobot_assets.feed.open import open_source

    with open_source(settings) as opened:
        compared = republished(store, opened)
    click.echo(f"{compared.checked:,} of {compared.files:,} loaded files compared with their published checksums.")
    for item in compared.replaced:
        click.echo(f"Replaced: {item.name} ({item.symbol} {item.interval}), {item.days[0]} to {item.days[-1]}")
    for run in consecutive(compared.days):
        run_range(settings, run[0], run[-1], ("market_data",), market_data={"check_archives": True})


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
def verify(first: date, last: date | None) -> None:
    """Compute the days FIRST to LAST again into nothing and compare with what is stored, bit by bit.

    Exits with 5 at a difference, and names the first of each table.
    """
    from algobot_assets.store.connection import Store
    from algobot_assets.verify import verify as verify_days

    settings = Settings()
    prepare(settings)
    failed = False
    with Store.open(settings) as store:
        for finding in verify_days(store, first, last or first):
            words = f"{finding.table:<20} {finding.days:>7,} days {finding.rows:>11,} rows  "
            click.echo(words + ("equal" if finding.difference is None else f"DIFFERS\n  {finding.difference}"))
            failed |= finding.difference is not None
    if failed:
        raise click.exceptions.Exit(5)

