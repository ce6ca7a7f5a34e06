"""Compute the table signals from candles, indicators and the strategy versions in force."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from algobot_assets.compute.code_version import strategy_code_version
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.declared.parameters import from_json
from algobot_assets.declared.versions import lifetimes
from algobot_assets.pipeline.by_candle import PRICES, days_of_candles, inputs_of_day, with_candle_ids
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import DAY, Chain, computable_days, compute_stale
from algobot_assets.pipeline.parameter_digests import ParameterDigests
from algobot_assets.pipeline.run import TableRun, interleave, skip_on_error
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.windows import Window


def signals(run: TableRun, market_data: Table, indicators: Table, strategies: Table) -> Iterator[WindowFrame]:
    """Yield the signals of each strategy version that has not ended before the run's days; none without strategies."""
    versions = lifetimes(strategies.versions(history=True))
    if versions.is_empty():
        run.log.info("No strategy is stored, so there are no signals to compute.")
        return
    digests = ParameterDigests.read(run.store, "signals")
    # keep the last month read: every strategy of its market needs it
    candles = lru_cache(maxsize=1)(lambda window: market_data.read(window, PRICES))
    ordered = versions.sort("symbol", "interval", "id").iter_rows(named=True)
    for market, of_market in groupby(ordered, key=lambda version: (version["symbol"], version["interval"])):
        if not run.includes(*market):
            continue
        yield from interleave(
            [skip_on_error(run, _signals(run, market_data, indicators, v, digests, candles)) for v in of_market]
        )


def _signals(
    run: TableRun,
    market_data: Table,
    indicators: Table,
    version: dict[str, Any],
    digests: ParameterDigests,
    prices_in: Callable[[Window], pl.DataFrame],
) -> Iterator[WindowFrame]:
    end = end_of_trading(version["symbol"], min(run.end, version["until"] or run.end))
    if end <= run.first:
        return
    candles = market_data.window(end=end, symbol=version["symbol"], interval=version["interval"])
    window = Window("signals", run.first, end, candles.symbol, candles.interval, version["id"], candles.phase)
    columns = list(get_strategy(version["strategy_type"]).indicators)
    begin = market_data.first_day(candles)
    prices_of = market_data.lineage(candles)
    values_of = indicators.window(end=end, symbol=candles.symbol, interval=candles.interval)
    upstream = [prices_of, indicators.lineage(values_of)] if columns else [prices_of]
    own = market_data.lineage(window.of(run.first - DAY, end))
    sources = ["market_data", "indicators"] if columns else ["market_data"]
    market = f"{candles.symbol} {candles.interval}"
    days = computable_days(window, market, begin, upstream, own, sources, market_data.last_complete)
    run.start(days, version["strategy_name"])
    parameters = from_json(version["parameters"]).parameters

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        part = candles.of(days[0], days[-1] + DAY)
        prices = prices_in(part)
        values = indicators.read(values_of.of(days[0], days[-1] + DAY), ["timestamp", *columns]) if columns else None
        frame, states = compute_signals(
            version["strategy_type"], prices, values, parameters, days_of_candles(part, prices, days), state
        )
        return with_candle_ids(frame, prices, window, "signals"), states

    chain = Chain(
        window,
        days,
        own,
        inputs=lambda day: inputs_of_day(upstream, day),
        parameters=lambda day: digests.on(version["id"], day),
        code_version=strategy_code_version(version["strategy_type"]),
        compute=compute,
    )
    yield from compute_stale(chain, run.day_counts, recompute=run.options.recompute)
