"""Compute the table indicators from candles and the configured windows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from algobot_assets.compute.code_version import indicators_code_version
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.declared.versions import effective
from algobot_assets.pipeline.by_candle import PRICES, days_of_candles, inputs_of_day, with_candle_ids
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import DAY, Chain, computable_days, compute_stale
from algobot_assets.pipeline.parameter_digests import ParameterDigests
from algobot_assets.pipeline.run import TableRun, skip_on_error
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import pieces
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.windows import Window
from algobot_assets.store.digests import SIZE


def indicators(run: TableRun, market_data: Table, configurations: Table) -> Iterator[WindowFrame]:
    """Yield the indicators of each market with recorded candles."""
    settings = configurations.versions(history=True)
    digests = ParameterDigests.read(run.store, "indicators")
    recorded = market_data.recorded()
    run.skip_unknown([f"{candles.symbol} {candles.interval}" for candles in recorded])
    for candles in recorded:
        if not run.includes(candles.symbol, candles.interval):
            continue
        yield from skip_on_error(run, _indicators(run, market_data, candles, settings, digests))


def _indicators(
    run: TableRun, market_data: Table, candles: Window, settings: pl.DataFrame, digests: ParameterDigests
) -> Iterator[WindowFrame]:
    end = end_of_trading(candles.symbol, run.end)
    if end <= run.first:
        return
    window = Window("indicators", run.first, end, candles.symbol, candles.interval, 0, candles.phase)
    begin = market_data.first_day(candles)
    upstream = market_data.lineage(candles)
    own = market_data.lineage(window.of(run.first - DAY, end))
    market = f"{candles.symbol} {candles.interval}"
    days = computable_days(window, market, begin, [upstream], own, ["market_data"], market_data.last_complete)
    run.start(days)

    def windows_on(day: date) -> IndicatorWindows:
        rows = effective(settings, day) if settings.height else settings
        return IndicatorWindows.from_configurations(dict(rows.select("config_name", "config_value").iter_rows()))

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        part = candles.of(days[0], days[-1] + DAY)
        prices = market_data.read(part, PRICES)
        frame, states = compute_indicators(
            prices, windows_on(days[0]), part.interval, days_of_candles(part, prices, days), state
        )
        return with_candle_ids(frame, prices, part, "indicators"), states

    chain = Chain(
        window,
        days,
        own,
        inputs=lambda day: inputs_of_day([upstream], day),
        parameters=lambda day: digests.on(0, day),
        code_version=indicators_code_version(),
        compute=compute,
        warm_start=_WarmStart(market_data, candles, begin, windows_on) if begin else None,
    )
    yield from compute_stale(chain, run.day_counts, recompute=run.options.recompute)


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
