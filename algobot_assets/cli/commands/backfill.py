"""`algobot backfill`: materialise a range of days."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.days import Day, check_first
from algobot_assets.cli.market_option import MarketName
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.cli.range_run import DECLARED, run_range
from algobot_assets.cli.source_choice import choose_source
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated. Default: all nine.")
@click.option(
    "--market", "markets", multiple=True, type=MarketName(), help='Only this market, as "BTCUSDT 1m"; may be repeated.'
)
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--from-source", is_flag=True, help="Ask the source again for candles that are stored.")
@click.option("--recompute", is_flag=True, help="Compute again even what is fresh.")
@click.option("--workers", default=1, type=click.IntRange(1), help="Runs at once: months of candles, then markets.")
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

    Without LAST only the day FIRST. What is stored and still holds is neither fetched nor computed again.
    """
    from algobot_assets.cli.summary import Tables
    from algobot_assets.schema.tables import NINE
    from algobot_assets.store.connection import Store

    for table in tables:
        if table not in NINE:
            raise SettingsError(f"There is no table {table}; there are {', '.join(NINE)}.")
    settings = choose_source(source)
    prepare(settings)
    check_first(first)
    options: dict[str, Any] = {}
    if from_source:
        options["market_data"] = {"from_source": True}
    if recompute:
        options |= {name: {"recompute": True} for name in NINE[4:] if not tables or name in tables}
    if markets:
        for table in set(tables or NINE) - set(DECLARED):
            options.setdefault(table, {})["markets"] = list(markets)
    if workers > 1:
        _side_by_side(settings, first, last or first, tables or NINE, markets, workers, options)
    ran = run_range(settings, first, last or first, tables, **options)
    with Store.open(settings) as store:
        stored = Tables.read(store)
    emit({"runs": [ran], **stored.document()}) if as_json else stored.show()


def _side_by_side(
    settings: Settings,
    first: date,
    last: date,
    tables: tuple[str, ...],
    markets: tuple[str, ...],
    workers: int,
    options: dict[str, Any],
) -> None:
    """Several runs at once: candles by months, then what follows from them by markets.

    The run over everything then finds it stored, asks and computes nothing anew, and looks at the whole.
    """
    from algobot_assets.cli import runs
    from algobot_assets.cli.parallel_runs import CANDLES, COMPUTED, compute_side_by_side, fetch_side_by_side
    from algobot_assets.declared.state_file import StateFile
    from algobot_assets.store.connection import Store

    def asked(of: tuple[str, ...]) -> dict[str, Any]:
        """Their options, of which the run over everything keeps the markets."""
        found = {table: options.pop(table) for table in of if table in options}
        options.update({table: {"markets": list(markets)} for table in of if markets and table in tables})
        return found

    computed = tuple(table for table in COMPUTED if table in tables)
    small = tuple(table for table in tables if table in DECLARED)
    with runs.instance(settings) as instance, Store.open(settings) as store:
        if set(CANDLES) & set(tables):
            fetch_side_by_side(instance, store, first, last, workers, say, options=asked(CANDLES))
        if computed:
            if small:
                run_range(settings, first, last, small)
            state = StateFile().load()
            compute_side_by_side(
                instance, store, state, first, last, workers, computed, say, options=asked(computed), only=markets
            )
