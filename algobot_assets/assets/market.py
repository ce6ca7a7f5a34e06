"""Candles, indicators and signals: the tables that follow each market candle by candle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from itertools import groupby

import numpy as np
import polars as pl

from algobot_assets.assets.candles import market_frames
from algobot_assets.assets.chain import DAY, Recorded, legal_days, run_chain
from algobot_assets.assets.ended import withdraw_ended
from algobot_assets.assets.factory import MarketOptions, TableRun, attempt, side_by_side, table_asset
from algobot_assets.assets.parameters import Digests
from algobot_assets.compute.carry import Days
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.compute.versions import code_version, indicators_code_version
from algobot_assets.declared.parameters import from_json
from algobot_assets.declared.versions import effective, lifetimes
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import day_of, pieces
from algobot_assets.schema.windows import Window
from algobot_assets.store.digests import SIZE
from algobot_assets.windows import Table, WindowFrame

PRICES = ("id", "timestamp", "open", "high", "low", "close", "volume")


class CandleOptions(MarketOptions):
    """Run configuration of market_data."""

    from_source: bool = False
    """Ask the source again for days that are stored complete, and take what it says now."""
    check_archives: bool = False
    """Compare the checksums of the files behind stored days with those published now; where a file has been
    replaced, fetch its days again."""


@table_asset(
    group="market",
    kinds=("python",),
    description="Closed candles exactly as Binance published them, one row per market and open. Complete days are "
    "not fetched again; a gap that the source confirms is recorded in `gaps`.",
    code_version="1",
    options=CandleOptions,
    pool="exchange",
)
def market_data(run: TableRun) -> Iterator[WindowFrame]:
    """Fetch what is missing of each declared market."""
    yield from market_frames(run)


def days_series(window: Window, candles: pl.DataFrame, days: Sequence[date]) -> Days:
    """The candles' days, as the computations want them."""
    return Days(days, candles.select(day_of(window.interval, window.phase).alias("day"))["day"])


def _upstream(recorded: Sequence[Recorded], day: date) -> tuple[bytes, datetime]:
    """Input digest of a day and how far it is complete: the upstream days' outputs side by side."""
    items = [by_day[day] for by_day in recorded]
    return b"".join(item.output for item in items), min(item.complete_through for item in items)


@table_asset(
    group="market",
    kinds=("polars",),
    description="ema, rsi, atr and vwap of every candle, from carried state: any way of running gives the same "
    "bits, and a new day costs one day. Windows come from `configurations`.",
    code_version=indicators_code_version(),
)
def indicators(run: TableRun, market_data: Table, configurations: Table) -> Iterator[WindowFrame]:
    """Indicators of each market with recorded candles."""
    settings = configurations.versions(history=True)
    digests = Digests.read(run.store, "indicators")
    recorded = market_data.recorded()
    run.refuse_unknown([f"{candles.symbol} {candles.interval}" for candles in recorded])
    for candles in recorded:
        if not run.takes(candles.symbol, candles.interval):
            continue
        yield from attempt(run, _indicators(run, market_data, candles, settings, digests))


def _indicators(
    run: TableRun, market_data: Table, candles: Window, settings: pl.DataFrame, digests: Digests
) -> Iterator[WindowFrame]:
    window = Window("indicators", run.first, run.end, candles.symbol, candles.interval, 0, candles.phase)
    begin = market_data.first_day(candles)
    upstream = market_data.lineage(candles)
    own = market_data.lineage(window.of(run.first - DAY, run.end))
    legal = legal_days(window, begin, [upstream], own, "market_data", market_data.last_complete)
    if legal.refusal:
        run.refuse(legal.refusal)
    run.proceeded += bool(legal.days)

    def windows_on(day: date) -> IndicatorWindows:
        rows = effective(settings, day) if settings.height else settings
        return IndicatorWindows.from_configurations(dict(rows.select("config_name", "config_value").iter_rows()))

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        part = candles.of(days[0], days[-1] + DAY)
        prices = market_data.read(part, PRICES)
        frame, states = compute_indicators(
            prices, windows_on(days[0]), part.interval, days_series(part, prices, days), state
        )
        return _linked(frame, prices, part, "indicators"), states

    yield from run_chain(
        window,
        legal,
        own,
        lambda day: _upstream([upstream], day),
        lambda day: digests.on(0, day),
        indicators_code_version(),
        compute,
        recompute=run.options.recompute,
        warm=_Warm(market_data, candles, begin, windows_on) if begin else None,
        tally=run.tally,
    )


@dataclass(frozen=True)
class _Warm:
    """Indicators under windows that hold from a day on, as if they had held from the market's first candle."""

    market_data: Table
    candles: Window
    begin: date
    windows_on: Callable[[date], IndicatorWindows]

    def basis(self, day: date) -> bytes:
        """The view of stale partitions computes the same digest in SQL."""
        recorded = self.market_data.lineage(self.candles.of(self.begin, day))
        return hashlib.sha256(b"".join(recorded[item].output for item in sorted(recorded))).digest()[:SIZE]

    def state(self, day: date) -> np.ndarray | None:
        """Piece by piece from the first day, rows thrown away."""
        state: np.ndarray | None = None
        for days in pieces(self.candles.interval, sorted(self.market_data.lineage(self.candles.of(self.begin, day)))):
            part = self.candles.of(days[0], days[-1] + DAY)
            prices = self.market_data.read(part, PRICES)
            of_day = days_series(part, prices, days)
            _, states = compute_indicators(prices, self.windows_on(day), part.interval, of_day, state)
            state = states[-1]
        return state


def _linked(frame: pl.DataFrame, prices: pl.DataFrame, window: Window, table: str) -> pl.DataFrame:
    """Rows of a computation with their market and the id of their candle, in the table's columns."""
    return frame.with_columns(
        prices["id"].alias("market_data_id"),
        pl.lit(window.symbol).alias("symbol"),
        pl.lit(window.interval).alias("interval"),
        *([pl.lit(window.strategy_id, dtype=pl.Int64).alias("strategy_id")] if window.strategy_id else []),
    ).select(list(schema_of(table)))


@table_asset(
    group="market",
    kinds=("polars",),
    description="What every strategy version decided at each closed candle: 1 buy, -1 sell, 0 hold. Stored for all "
    "candles; the ledger ignores those before the version's effective date.",
    code_version="-".join(code_version(kind)[:4] for kind in strategy_types()),
    before=withdraw_ended,
)
def signals(run: TableRun, market_data: Table, indicators: Table, strategies: Table) -> Iterator[WindowFrame]:
    """Signals of each strategy version that is in force in the run's days or will be."""
    versions = lifetimes(strategies.versions(history=True))
    if versions.is_empty():
        run.refuse("No strategy is stored that is in force by the run's days: run `algobot apply`.")
        return
    digests = Digests.read(run.store, "signals")
    # the month that is read last serves every strategy of its market
    candles = lru_cache(maxsize=1)(lambda window: market_data.read(window, PRICES))
    ordered = versions.sort("symbol", "interval", "id").iter_rows(named=True)
    for market, of_market in groupby(ordered, key=lambda version: (version["symbol"], version["interval"])):
        if not run.takes(*market):
            continue
        yield from side_by_side(
            [attempt(run, _signals(run, market_data, indicators, v, digests, candles)) for v in of_market]
        )


def _signals(
    run: TableRun,
    market_data: Table,
    indicators: Table,
    version: dict,
    digests: Digests,
    prices_in: Callable[[Window], pl.DataFrame],
) -> Iterator[WindowFrame]:
    end = min(run.end, version["until"] or run.end)
    candles = market_data.window(end=end, symbol=version["symbol"], interval=version["interval"])
    window = Window("signals", run.first, end, candles.symbol, candles.interval, version["id"], candles.phase)
    if end <= run.first:
        return
    columns = list(get_strategy(version["strategy_type"]).indicators)
    begin = market_data.first_day(candles)
    prices_of = market_data.lineage(candles)
    values_of = indicators.window(end=end, symbol=candles.symbol, interval=candles.interval)
    upstream = [prices_of, indicators.lineage(values_of)] if columns else [prices_of]
    own = market_data.lineage(window.of(run.first - DAY, end))
    source = "market_data and indicators" if columns else "market_data"
    legal = legal_days(window, begin, upstream, own, source, market_data.last_complete)
    if legal.refusal:
        run.refuse(legal.refusal)
    run.proceeded += bool(legal.days)
    parameters = from_json(version["parameters"]).parameters

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        part = candles.of(days[0], days[-1] + DAY)
        prices = prices_in(part)
        values = indicators.read(values_of.of(days[0], days[-1] + DAY), ["timestamp", *columns]) if columns else None
        frame, states = compute_signals(
            version["strategy_type"], prices, values, parameters, days_series(part, prices, days), state
        )
        return _linked(frame, prices, window, "signals"), states

    yield from run_chain(
        window,
        legal,
        own,
        lambda day: _upstream(upstream, day),
        lambda day: digests.on(version["id"], day),
        code_version(version["strategy_type"]),
        compute,
        recompute=run.options.recompute,
        tally=run.tally,
    )
