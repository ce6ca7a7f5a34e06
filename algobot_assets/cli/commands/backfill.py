"""`algobot backfill`: materialise a range of days."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.days import DECLARED, Day, choose_days
from algobot_assets.cli.market_option import MarketName
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.cli.range_run import run_range
from algobot_assets.cli.source_choice import choose_source
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
@click.option("--table", "tables", multiple=True, help="Only this table (repeatable). Default: all nine.")
@click.option(
    "--market", "markets", multiple=True, type=MarketName(), help='Only this market, such as "BTCUSDT 1m" (repeatable).'
)
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--from-source", is_flag=True, help="Fetch stored candles again.")
@click.option("--recompute", is_flag=True, help="Recompute days that are up to date.")
@click.option("--workers", default=1, type=click.IntRange(1), help="Parallel runs: first by months, then by markets.")
@json_option
def backfill(
    first: date,
    last: date | None,
    tables: tuple[str, ...],
    markets: tuple[str, ...],
    source: str | None,
    from_source: bool,
    recompute: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Materialise the days FIRST to LAST in one run.

    If LAST is omitted, only FIRST is run. Data that is stored and up to date is skipped.
    """
    from algobot_assets.cli.summary import StoredTables
    from algobot_assets.schema.tables import NINE
    from algobot_assets.store.connection import Store

    for table in tables:
        if table not in NINE:
            raise SettingsError(f"There is no table {table}. Choose from {', '.join(NINE)}.")
    settings = choose_source(source)
    prepare(settings)
    with Store.open(settings) as store:
        days = choose_days(settings, store, first, last or first, tables)
    options: dict[str, Any] = {}
    if from_source:
        options["market_data"] = {"from_source": True}
    if recompute:
        options |= {name: {"recompute": True} for name in NINE[4:] if not tables or name in tables}
    if markets:
        for table in set(tables or NINE) - set(DECLARED):
            options.setdefault(table, {})["markets"] = list(markets)
    if workers > 1:
        _backfill_in_parallel(settings, days.first, days.last, tables or NINE, markets, workers, options)
    ran = run_range(settings, days.first, days.last, tables, **options)
    with Store.open(settings) as store:
        stored = StoredTables.read(store)
    emit({"runs": [ran], **stored.document()}) if as_json else stored.show()


def _backfill_in_parallel(
    settings: Settings,
    first: date,
    last: date,
    tables: tuple[str, ...],
    markets: tuple[str, ...],
    workers: int,
    options: dict[str, Any],
) -> None:
    """Run in parallel: candles by months, then the computed tables by markets.

    The final run over all days finds everything stored and only checks the result.
    """
    from algobot_assets.cli import interrupts, runs
    from algobot_assets.cli.parallel_runs import CANDLES, COMPUTED, compute_in_parallel, fetch_in_parallel
    from algobot_assets.declared.state_file import StateFile
    from algobot_assets.store.connection import Store

    def take_options(of: tuple[str, ...]) -> dict[str, Any]:
        """Remove the options of these tables; the final run keeps only their markets."""
        found = {table: options.pop(table) for table in of if table in options}
        options.update({table: {"markets": list(markets)} for table in of if markets and table in tables})
        return found

    computed = tuple(table for table in COMPUTED if table in tables)
    small = tuple(table for table in tables if table in DECLARED)
    with interrupts.unwinding(), runs.instance(settings) as instance, Store.open(settings) as store:
        if set(CANDLES) & set(tables):
            fetch_in_parallel(instance, store, first, last, workers, say, options=take_options(CANDLES))
        if computed:
            if small:
                run_range(settings, first, last, small)
            state = StateFile().load()
            compute_in_parallel(
                instance,
                store,
                state,
                first,
                last,
                workers,
                computed,
                say,
                options=take_options(computed),
                only=markets,
            )
