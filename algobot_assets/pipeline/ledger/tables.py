"""Compute trade_history, performance_metrics and backtest_results, the three tables of one simulated ledger.

The ledger's carried state is kept with trade_history; the other two are computed from the same walk. In one run
the walk of a window is made once and cached, keyed by the digests of everything it depends on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import psycopg

from algobot_assets.compute.code_version import ledger_code_version
from algobot_assets.compute.ledger.run import LedgerRun, candle_arrays, run_ledger
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import DAY, Chain, ComputableDays, Recorded, computable_days, compute_stale
from algobot_assets.pipeline.ledger.inputs import LedgerInputs
from algobot_assets.pipeline.run import TableRun, interleave, skip_on_error
from algobot_assets.pipeline.skipped import Skipped
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import consecutive, end_of, midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store.copy import copy_in
from algobot_assets.store.digests import digest, state_digest
from algobot_assets.store.reader import read_window

CODE_VERSION = ledger_code_version()
#: Walks of this process, newest last; a key holds every digest the walk depends on, so an entry cannot be stale.
_walks: OrderedDict[bytes, LedgerRun] = OrderedDict()
_WALKS_KEPT = 512


def trade_history(
    run: TableRun,
    market_data: Table,
    signals: Table,
    strategies: Table,
    risk_parameters: Table,
    configurations: Table,
) -> Iterator[WindowFrame]:
    """Yield the trades of each strategy version, from its effective date on."""
    inputs = LedgerInputs.read(run, market_data, signals, strategies, risk_parameters, configurations)
    yield from _by_market(run, inputs, lambda version: _ledger(run, inputs, version))


def _by_market(
    run: TableRun, inputs: LedgerInputs, frames_of: Callable[[dict[str, Any]], Iterator[WindowFrame]]
) -> Iterator[WindowFrame]:
    """Yield the frames of every version; those of one market are interleaved."""
    for market, of_market in groupby(inputs.versions(), key=lambda version: (version["symbol"], version["interval"])):
        if not run.includes(*market):
            continue
        yield from interleave([skip_on_error(run, frames_of(version)) for version in of_market])


def _ledger(run: TableRun, inputs: LedgerInputs, version: dict[str, Any]) -> Iterator[WindowFrame]:
    strategy = version["id"]
    begin, end = inputs.span(version)
    if run.first >= end or begin >= run.end:
        return
    candles = inputs.candles(version, run.first, end)
    window = Window("trade_history", max(run.first, begin), end, strategy_id=strategy)
    recorded = inputs.market_data.first_day(candles)
    upstream = inputs.upstream(version, window.first, end)
    own = inputs.market_data.lineage(window.of(window.first - DAY, end))
    # the ledger begins on the strategy's effective date, even if the market has earlier days
    start = None if recorded is None else max(begin, recorded)
    market = f"{version['symbol']} {version['interval']}"
    last_complete = inputs.market_data.last_complete
    computable = computable_days(window, market, start, upstream, own, ["market_data", "signals"], last_complete)
    run.start(computable, version["strategy_name"])

    unfilled: dict[date, pl.DataFrame] = {}

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, list[np.ndarray]]:
        walk = _walk(inputs, version, days, state, upstream)
        unfilled[days[0]] = walk.unfilled
        frame = walk.trades.with_columns(
            pl.lit(strategy, dtype=pl.Int64).alias("strategy_id"),
            pl.lit(version["symbol"]).alias("symbol"),
            pl.lit(version["interval"]).alias("interval"),
        ).select(list(schema_of("trade_history")))
        return frame, [walk.states[day] for day in days]

    chain = Chain(
        window,
        computable,
        own,
        inputs=lambda day: inputs.of_day(version, upstream, day),
        parameters=lambda day: inputs.digests.on(strategy, day),
        code_version=CODE_VERSION,
        compute=compute,
        interval=inputs.cut_by(version),
    )
    for item in compute_stale(chain, run.day_counts, recompute=run.options.recompute):
        counts = unfilled.pop(item.window.first)
        yield replace(item, before_commit=partial(_store_unfilled, window=item.window, counts=counts))


def _store_unfilled(connection: psycopg.Connection, window: Window, counts: pl.DataFrame) -> None:
    """Replace the window's counts of signals that led to no order."""
    strategy = window.strategy_id
    connection.execute(
        "DELETE FROM unfilled_signals WHERE strategy_id = %s AND day >= %s AND day < %s",
        (strategy, window.first, window.end),
    )
    rows = counts.with_columns(pl.lit(strategy, pl.Int64).alias("strategy_id"))
    copy_in(connection, "unfilled_signals", rows.select(list(schema_of("unfilled_signals"))))


def _walk(
    inputs: LedgerInputs,
    version: dict[str, Any],
    days: Sequence[date],
    state: np.ndarray | None,
    upstream: Sequence[Recorded],
) -> LedgerRun:
    """Return the ledger over ``days`` from ``state``; computed once per process for the same inputs."""
    parts = [inputs.of_day(version, upstream, day) for day in days]
    key = digest(
        CODE_VERSION.encode(),
        str((version["id"], days[0], days[-1], parts[-1][1])).encode(),
        state_digest(state) or b"",
        *(content for content, _ in parts),
        *(inputs.digests.on(version["id"], day) for day in days),
    )
    if key not in _walks:
        _walks[key] = _walked(inputs, version, days, state, parts[-1][1])
        while len(_walks) > _WALKS_KEPT:
            _walks.popitem(last=False)
    return _walks[key]


def _walked(
    inputs: LedgerInputs, version: dict[str, Any], days: Sequence[date], state: np.ndarray | None, through: datetime
) -> LedgerRun:
    candles = inputs.candles(version, days[0], days[-1] + DAY)
    label = f"{version['strategy_name']} on {version['symbol']} {version['interval']}"
    prices = inputs.prices(candles)
    decided = inputs.decisions(version, days[0], days[-1] + DAY)
    signal = prices.select("timestamp").join(decided, on="timestamp", how="left")["signal"].fill_null(0)
    as_of = None if through >= midnight(days[-1] + DAY) else round(through.timestamp() * 1000)
    runs: list[LedgerRun] = []
    for _, group in groupby(days, key=lambda day: inputs.digests.on(version["id"], day)):
        part_days = list(group)
        part = candles.of(part_days[0], part_days[-1] + DAY)
        lo, hi = part.bounds
        inside = prices["timestamp"].is_between(lo, hi, closed="left")
        rows = prices.filter(inside)
        ends = rows.select(end_of(part.interval, part.phase).alias("end"))["end"]
        step = run_ledger(
            candle_arrays(rows, ends, label),
            signal.filter(inside),
            inputs.days(part, rows, part_days),
            None,
            inputs.terms(version, part_days[0]),
            state,
            minutes=inputs.minutes(version, part),
            as_of_ms=as_of if part_days[-1] == days[-1] else None,
            label=label,
        )
        runs.append(step)
        state = step.states[part_days[-1]]
    return LedgerRun(
        pl.concat([r.trades for r in runs]),
        pl.concat([r.metrics for r in runs]),
        pl.concat([r.results for r in runs]),
        {day: state for r in runs for day, state in r.states.items()},
        pl.concat([r.unfilled for r in runs]),
    )


def _derived(
    run: TableRun,
    trade_history: Table,
    inputs: LedgerInputs,
    version: dict[str, Any],
    rows: Callable[[int, LedgerRun, Sequence[date]], pl.DataFrame],
) -> Iterator[WindowFrame]:
    """Yield the windows of a table that follows trade_history day by day: the same walks, from its stored states."""
    strategy = version["id"]
    begin, end = inputs.span(version)
    if run.first >= end or begin >= run.end:
        return
    window = Window(run.table, max(run.first, begin), end, strategy_id=strategy)
    ledger = trade_history.lineage(Window("trade_history", window.first - DAY, end, strategy_id=strategy))
    first = trade_history.first_day(Window("trade_history", window.first, end, strategy_id=strategy))
    own = trade_history.lineage(window)
    days = [day for day in sorted(ledger) if day >= window.first]
    if not days:
        market, last = f"{version['symbol']} {version['interval']}", window.end - DAY
        reason = "no trade_history stored"
        run.skip(
            Skipped(run.table, reason, "", market, version["strategy_name"], window.first, last, None, window.first)
        )
        return
    run.succeeded += 1
    upstream = inputs.upstream(version, window.first, end)

    def compute(chunk: Sequence[date], _: np.ndarray | None) -> tuple[pl.DataFrame, None]:
        before = ledger.get(chunk[0] - DAY)
        state = None if chunk[0] == first or before is None else before.state_out
        walk = _walk(inputs, version, chunk, state, upstream)
        return rows(strategy, walk, chunk).select(list(schema_of(run.table))), None

    for run_of_days in consecutive(days):
        chain = Chain(
            window,
            ComputableDays(tuple(run_of_days), True),
            own,
            inputs=lambda day: (
                ledger[day].inputs + (ledger[day].state_in or b"") + ledger[day].output,
                ledger[day].complete_through,
            ),
            parameters=lambda day: ledger[day].parameters,
            code_version=CODE_VERSION,
            compute=compute,
            interval=inputs.cut_by(version),
        )
        yield from compute_stale(chain, run.day_counts, recompute=run.options.recompute)


def performance_metrics(
    run: TableRun,
    trade_history: Table,
    market_data: Table,
    signals: Table,
    strategies: Table,
    risk_parameters: Table,
    configurations: Table,
) -> Iterator[WindowFrame]:
    """Yield performance_metrics: one row per closed trade."""
    inputs = LedgerInputs.read(run, market_data, signals, strategies, risk_parameters, configurations)

    def figures(strategy: int, walk: LedgerRun, days: Sequence[date]) -> pl.DataFrame:
        of_days = Window("trade_history", days[0], days[-1] + DAY, strategy_id=strategy)
        trades = read_window(run.store, of_days, ["id", "entry_time"])
        return walk.metrics.join(trades, on="entry_time", how="left").rename({"id": "trade_id"})

    yield from _by_market(run, inputs, lambda version: _derived(run, trade_history, inputs, version, figures))


def backtest_results(
    run: TableRun,
    trade_history: Table,
    market_data: Table,
    signals: Table,
    strategies: Table,
    risk_parameters: Table,
    configurations: Table,
) -> Iterator[WindowFrame]:
    """Yield backtest_results: one row per strategy version and day."""
    inputs = LedgerInputs.read(run, market_data, signals, strategies, risk_parameters, configurations)

    def results(strategy: int, walk: LedgerRun, _: Sequence[date]) -> pl.DataFrame:
        return walk.results.with_columns(pl.lit(strategy, dtype=pl.Int64).alias("strategy_id"))

    yield from _by_market(run, inputs, lambda version: _derived(run, trade_history, inputs, version, results))
