"""Compute the table signals from candles, indicators and the strategy versions in force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from algobot_assets.compute.code_version import strategy_code_version
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.declared.parameters import from_json
from algobot_assets.declared.versions import lifetimes
from algobot_assets.pipeline.by_candle import PRICES, days_of_candles, inputs_of_day, rows_of_market
from algobot_assets.pipeline.steps.batches import attempt, compute_chains
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.pipeline.steps.incremental import DAY, Chain, Rows, computable_days
from algobot_assets.pipeline.steps.plan import Plan
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.symbols import end_of_trading


def signals(run: TableRun, market_data: Table, indicators: Table, strategies: Table) -> Iterator[WindowFrame]:
    """Yield the signals of each strategy version that has not ended before the run's days; none without strategies."""
    versions = lifetimes(strategies.versions(history=True))
    if versions.is_empty():
        run.log.info("No strategy is stored, so there are no signals to compute.")
        return
    wanted = [
        version
        for version in versions.sort("symbol", "interval", "id").iter_rows(named=True)
        if run.includes(version["symbol"], version["interval"])
    ]
    markets = {(version["symbol"], version["interval"]) for version in wanted}
    plan = Plan.read(run, ("market_data", "indicators", "signals"), "signals", markets)
    chains = [attempt(run, partial(_chain, plan, market_data, version)) for version in wanted]
    yield from compute_chains(run, [chain for chain in chains if chain is not None], plan.reader)


def _chain(plan: Plan, market_data: Table, version: dict[str, Any]) -> Chain | None:
    """Return the days of a version; None if it ended before the run's days."""
    run, symbol, interval = plan.run, version["symbol"], version["interval"]
    end = end_of_trading(symbol, min(run.end, version["until"] or run.end))
    if end <= run.first:
        return None
    strategy_type = version["strategy_type"]
    columns = tuple(get_strategy(strategy_type).indicators)
    candles = market_data.window(end=end, symbol=symbol, interval=interval)
    window = candles.in_table("signals", version["id"])
    sources = ["market_data", "indicators"] if columns else ["market_data"]
    upstream = [plan.recorded.days(candles.in_table(name)) for name in sources]
    own = plan.recorded.days(window.of(run.first - DAY, end))
    parameters = from_json(version["parameters"]).parameters

    def reads(days: Sequence[date]) -> list[Rows]:
        part = candles.of(days[0], days[-1] + DAY)
        prices = Rows(part, PRICES)
        return [prices, Rows(part.in_table("indicators"), ("timestamp", *columns))] if columns else [prices]

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        prices, *values = map(plan.reader.get, reads(days))
        of_day = days_of_candles(candles, prices, days)
        frame, states = compute_signals(strategy_type, prices, values[0] if values else None, parameters, of_day, state)
        return rows_of_market(frame, window), states

    begin = plan.begins.get((symbol, interval))
    last_complete = market_data.last_complete
    return Chain(
        window,
        computable_days(window, f"{symbol} {interval}", begin, upstream, own, sources, last_complete),
        own,
        inputs=lambda day: inputs_of_day(upstream, day),
        parameters=lambda day: plan.digests.on(version["id"], day),
        code_version=strategy_code_version(strategy_type),
        compute=compute,
        strategy=version["strategy_name"],
        reads=reads,
    )
