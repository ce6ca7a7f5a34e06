"""Compute the table indicators from candles and the configured windows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np
import polars as pl

from algobot_assets.compute.code_version import indicators_code_version
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.declared.versions import effective
from algobot_assets.pipeline.by_candle import PRICES, days_of_candles, inputs_of_day, rows_of_market
from algobot_assets.pipeline.steps.batches import compute_chains
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.pipeline.steps.incremental import DAY, Chain, Rows, computable_days
from algobot_assets.pipeline.steps.plan import Plan
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import pieces
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage.digests import SIZE


def indicators(run: TableRun, market_data: Table, configurations: Table) -> Iterator[WindowFrame]:
    """Yield the indicators of each market with recorded candles."""
    plan = Plan.read(run, ("market_data", "indicators"), "indicators")
    markets = [market_data.window(symbol=symbol, interval=interval) for symbol, interval in plan.begins]
    markets = [candles for candles in markets if plan.recorded.days(candles)]
    run.skip_unknown([f"{candles.symbol} {candles.interval}" for candles in markets])
    windows_on = _windows_in_force(configurations.versions(history=True))
    wanted = [candles for candles in markets if run.includes(candles.symbol, candles.interval)]
    chains = [_chain(plan, market_data, candles, windows_on) for candles in sorted(wanted, key=lambda c: c.key)]
    yield from compute_chains(run, [chain for chain in chains if chain is not None], plan.reader)


def _windows_in_force(settings: pl.DataFrame) -> Callable[[date], IndicatorWindows]:
    """Return a function from a day to the indicator windows in force on it."""

    @cache
    def windows_on(day: date) -> IndicatorWindows:
        rows = effective(settings, day) if settings.height else settings
        return IndicatorWindows.from_configurations(dict(rows.select("config_name", "config_value").iter_rows()))

    return windows_on


def _chain(
    plan: Plan, market_data: Table, candles: Window, windows_on: Callable[[date], IndicatorWindows]
) -> Chain | None:
    """Return the days of a market; None if it ended before the run's days."""
    run, interval = plan.run, candles.interval
    end = end_of_trading(candles.symbol, run.end)
    if end <= run.first:
        return None
    window = candles.in_table("indicators").of(run.first, end)
    upstream = plan.recorded.days(candles)
    own = plan.recorded.days(window.of(run.first - DAY, end))
    begin = plan.begins.get((candles.symbol, interval))

    def reads(days: Sequence[date]) -> list[Rows]:
        return [Rows(candles.of(days[0], days[-1] + DAY), PRICES)]

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        (prices,) = map(plan.reader.get, reads(days))
        of_day = days_of_candles(candles, prices, days)
        frame, states = compute_indicators(prices, windows_on(days[0]), interval, of_day, state)
        return rows_of_market(frame, window), states

    market, last_complete = f"{candles.symbol} {interval}", market_data.last_complete
    return Chain(
        window,
        computable_days(window, market, begin, [upstream], own, ["market_data"], last_complete),
        own,
        inputs=lambda day: inputs_of_day([upstream], day),
        parameters=lambda day: plan.digests.on(0, day),
        code_version=indicators_code_version(),
        compute=compute,
        warm_start=_WarmStart(market_data, candles, begin, windows_on) if begin else None,
        reads=reads,
    )


@dataclass(frozen=True)
class _WarmStart:
    """The state under new indicator windows, as if they had been in force since the market's first candle."""

    market_data: Table
    candles: Window
    begin: date
    windows_on: Callable[[date], IndicatorWindows]

    def basis(self, day: date) -> bytes:
        """Return a digest of all candles before ``day``; the view stale_partitions computes the same in SQL."""
        recorded = self.market_data.lineage(self.candles.of(self.begin, day))
        return hashlib.sha256(b"".join(recorded[item].output for item in sorted(recorded))).digest()[:SIZE]

    def state(self, day: date) -> np.ndarray | None:
        """Compute the state piece by piece from the first day, discarding the rows."""
        state: np.ndarray | None = None
        for days in pieces(self.candles.interval, sorted(self.market_data.lineage(self.candles.of(self.begin, day)))):
            part = self.candles.of(days[0], days[-1] + DAY)
            prices = self.market_data.read(part, PRICES)
            of_day = days_of_candles(part, prices, days)
            _, states = compute_indicators(prices, self.windows_on(day), part.interval, of_day, state)
            state = states[-1]
        return state
