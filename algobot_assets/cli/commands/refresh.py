"""`algobot refresh`: fetch new candles and recompute what is stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.days import DECLARED
from algobot_assets.cli.output import STALE, emit, json_option, say
from algobot_assets.cli.range_run import Ran, run_range
from algobot_assets.cli.source_choice import choose_source
from algobot_assets.schema.intervals import consecutive
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.store.connection import Store


@click.command()
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--stored-only", is_flag=True, help="Fetch nothing; only recompute what is stale.")
@click.option("--from-source", is_flag=True, help="Fetch candles again that were edited by hand.")
@click.option("--check-archives", is_flag=True, help="Fetch files again that Binance's archive has replaced.")
@json_option
def refresh(source: str | None, stored_only: bool, from_source: bool, check_archives: bool, as_json: bool) -> None:
    """Fetch new candles and recompute what is stale, oldest days first.

    Exit code 4: some partitions are still stale.
    """
    from algobot_assets.audit.staleness import complete_through, due, edited_days
    from algobot_assets.pipeline.code_versions import register_code
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
            ran += _fetch_new(settings, store)
        run = due(store)
        if run is not None:
            say(f"Recomputing: {run.reason}.")
            ran.append(run_range(settings, run.first, run.last, run.tables))
        left = None if run is None else due(store)
        until = complete_through(store)
    if as_json:
        emit({"runs": ran, "stale": None if left is None else left.reason})
    elif left is None:
        if not stored_only:
            click.echo(f"Up to date until {until:%Y-%m-%d %H:%M} UTC." if until else "No candles are stored yet.")
        click.echo("Nothing is stale.")
    if left is not None:
        say(f"Still stale: {left.reason}; see `algobot status`.")
        raise click.exceptions.Exit(STALE)


def _fetch_new(settings: Settings, store: Store) -> list[Ran]:
    """Run all tables from the first day that lacks candles to the newest day, for outdated markets only."""
    from algobot_assets.audit.staleness import due
    from algobot_assets.declared.state_file import StateFile
    from algobot_assets.feed.open import CandleFeed
    from algobot_assets.pipeline.days import newest_day, outdated_markets
    from algobot_assets.schema.tables import NINE

    feed, markets = CandleFeed(settings.candles_from), StateFile().load().markets
    newest = newest_day(feed)
    with feed.opened() as source:
        outdated = outdated_markets(
            store, markets, newest.day, lambda market: source.known_through(market.symbol, market.interval)
        )
    if not outdated:
        return []
    stale = due(store)
    first = min([*outdated.values(), *([stale.first] if stale else [])])
    options: dict[str, Any] = {}
    if len(outdated) < len(markets):  # the others have nothing new to compute from
        options = {table: {"markets": sorted(outdated)} for table in NINE if table not in DECLARED}
    return [run_range(settings, first, newest.day, NINE, **options)]


def _take_replaced(settings: Settings, store: Store) -> list[Ran]:
    """Find files that were replaced since they were loaded, and fetch their days again."""
    from algobot_assets.feed.open import open_source
    from algobot_assets.pipeline.candles.republished import republished

    with open_source(settings) as opened:
        compared = republished(store, opened)
    say(f"Compared {compared.checked:,} of {compared.files:,} loaded files with their published checksums.")
    for item in compared.replaced:
        say(f"Replaced: {item.name} ({item.symbol} {item.interval}), {item.days[0]} to {item.days[-1]}")
    return [
        run_range(settings, run[0], run[-1], ("market_data",), market_data={"check_archives": True})
        for run in consecutive(compared.days)
    ]
