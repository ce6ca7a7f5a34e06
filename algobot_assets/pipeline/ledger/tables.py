"""Compute trade_history, performance_metrics and backtest_results, the three tables of one simulated ledger.

The ledger's carried state is kept with trade_history; the other two are computed from the same walk. In one run
the walk of a window is made once and cached, keyed by the digests of everything it depends on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import psycopg

from algobot_assets.compute.code_version import ledger_code_version
from algobot_assets.compute.ledger.run import LedgerRun, candle_arrays, run_ledger
from algobot_assets.pipeline.ledger.inputs import LedgerInputs
from algobot_assets.pipeline.skipped import Skipped
from algobot_assets.pipeline.steps.batches import compute_chains
from algobot_assets.pipeline.steps.frames import Record, WindowFrame
from algobot_assets.pipeline.steps.incremental import DAY, Chain, ComputableDays, Recorded, Rows, computable_days
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import consecutive, end_of, midnight
from algobot_assets.schema.windows import Window, frame_schema
from algobot_assets.store.copy import copy_in
from algobot_assets.store.lineage.digests import digest, state_digest

CODE_VERSION = ledger_code_version()
#: Walks of this process, newest last; a key holds every digest the walk depends on, so an entry cannot be stale.
_walks: OrderedDict[bytes, LedgerRun] = OrderedDict()
_WALKS_KEPT = 512
_Unfilled = dict[tuple[int, date], pl.DataFrame]


def trade_history(
    run: TableRun,
    market_data: Table,
    signals: Table,
    strategies: Table,
    risk_parameters: Table,
    configurations: Table,
) -> Iterator[WindowFrame]:
    """Yield the trades of each strategy version, from its effective date on."""
    inputs = LedgerInputs.read(run, market_data, strategies, risk_parameters, configurations)
    unfilled: _Unfilled = {}
    chains = [chain for version in inputs.versions() if (chain := _ledger(run, inputs, version, unfilled)) is not None]
    for item in compute_chains(run, chains, inputs.reader):
        counts = unfilled.pop((item.window.strategy_id, item.window.first))
        yield replace(item, records=[Record(_store_unfilled, (item.window, counts))])


def _store_unfilled(connection: psycopg.Connection, windows: Sequence[tuple[Window, pl.DataFrame]]) -> None:
    """Replace the windows' counts of signals that led to no order."""
    connection.execute(
        """DELETE FROM unfilled_signals AS u USING unnest(%s::bigint[], %s::date[], %s::date[]) AS w (id, lo, hi)
            WHERE u.strategy_id = w.id AND u.day >= w.lo AND u.day < w.hi""",
        [[getattr(window, name) for window, _ in windows] for name in ("strategy_id", "first", "end")],
    )
    rows = [counts.with_columns(pl.lit(w.strategy_id, pl.Int64).alias("strategy_id")) for w, counts in windows]
    copy_in(connection, "unfilled_signals", pl.concat(rows).select(list(schema_of("unfilled_signals"))))


def _ledger(run: TableRun, inputs: LedgerInputs, version: dict[str, Any], unfilled: _Unfilled) -> Chain | None:
    """Return the days of a version's ledger; None if it has none in the run."""
    strategy = version["id"]
    begin, end = inputs.span(version)
    if run.first >= end or begin >= run.end:
        return None
    window = Window("trade_history", max(run.first, begin), end, strategy_id=strategy)
    recorded = inputs.begins.get((version["symbol"], version["interval"]))
    upstream = inputs.upstream(version, window.first, end)
    own = inputs.recorded.days(window.of(window.first - DAY, end))
    # the ledger begins on the strategy's effective date, even if the market has earlier days
    start = None if recorded is None else max(begin, recorded)
    market = f"{version['symbol']} {version['interval']}"
    last_complete = inputs.market_data.last_complete
    computable = computable_days(window, market, start, upstream, own, ["market_data", "signals"], last_complete)

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, list[np.ndarray]]:
        walk = _walk(inputs, version, days, state, upstream)
        frame = walk.trades.with_columns(
            pl.lit(strategy, dtype=pl.Int64).alias("strategy_id"),
            pl.lit(version["symbol"]).alias("symbol"),
            pl.lit(version["interval"]).alias("interval"),
        ).select(list(schema_of("trade_history")))
        unfilled[strategy, days[0]] = walk.unfilled
        return frame, [walk.states[day] for day in days]

    return Chain(
        window,
        computable,
        own,
        inputs=lambda day: inputs.of_day(version, upstream, day),
        parameters=lambda day: inputs.digests.on(strategy, day),
        code_version=CODE_VERSION,
        compute=compute,
        interval=inputs.cut_by(version),
        strategy=version["strategy_name"],
        reads=lambda days: inputs.reads(version, days),
    )


def _walk_key(
    inputs: LedgerInputs,
    version: dict[str, Any],
    days: Sequence[date],
    state: np.ndarray | None,
    upstream: Sequence[Recorded],
) -> tuple[bytes, datetime]:
    """Return a digest of everything a walk over ``days`` depends on, and the time up to which its last day is known."""
    parts = [inputs.of_day(version, upstream, day) for day in days]
    through = parts[-1][1]
    key = digest(
        CODE_VERSION.encode(),
        str((version["id"], days[0], days[-1], through)).encode(),
        state_digest(state) or b"",
        *(content for content, _ in parts),
        *(inputs.digests.on(version["id"], day) for day in days),
    )
    return key, through


def _walk(
    inputs: LedgerInputs,
    version: dict[str, Any],
    days: Sequence[date],
    state: np.ndarray | None,
    upstream: Sequence[Recorded],
) -> LedgerRun:
    """Return the ledger over ``days`` from ``state``; computed once per process for the same inputs."""
    key, through = _walk_key(inputs, version, days, state, upstream)
    if key not in _walks:
        _walks[key] = _walked(inputs, version, days, state, through)
        while len(_walks) > _WALKS_KEPT:
            _walks.popitem(last=False)
    return _walks[key]


def _walked(
    inputs: LedgerInputs, version: dict[str, Any], days: Sequence[date], state: np.ndarray | None, through: datetime
) -> LedgerRun:
    candles = inputs.candles(version, days[0], days[-1] + DAY)
    label = f"{version['strategy_name']} on {version['symbol']} {version['interval']}"
    prices, decided, *minutes = map(inputs.reader.get, inputs.reads(version, days))
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
            minutes=minutes[0] if minutes else None,
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
    inputs: LedgerInputs,
    rows: Callable[[int, LedgerRun], pl.DataFrame],
) -> Iterator[WindowFrame]:
    """Yield the windows of a table that follows trade_history day by day: the same walks, from its stored states."""
    chains = [chain for version in inputs.versions() for chain in _days_of_ledger(run, inputs, version, rows)]
    yield from compute_chains(run, chains, inputs.reader)


def _days_of_ledger(
    run: TableRun, inputs: LedgerInputs, version: dict[str, Any], rows: Callable[[int, LedgerRun], pl.DataFrame]
) -> Iterator[Chain]:
    """Yield one chain for each run of days that trade_history has recorded."""
    strategy = version["id"]
    begin, end = inputs.span(version)
    if run.first >= end or begin >= run.end:
        return
    window = Window(run.table, max(run.first, begin), end, strategy_id=strategy)
    ledger = inputs.recorded.days(Window("trade_history", window.first - DAY, end, strategy_id=strategy))
    own = inputs.recorded.days(window)
    days = [day for day in ledger if day >= window.first]
    if not days:
        market, last = f"{version['symbol']} {version['interval']}", window.end - DAY
        reason = "no trade_history stored"
        run.skip(
            Skipped(run.table, reason, "", market, version["strategy_name"], window.first, last, None, window.first)
        )
        return
    upstream = inputs.upstream(version, window.first, end)

    def state_before(day: date) -> np.ndarray | None:
        before = ledger.get(day - DAY)
        return None if before is None or ledger[day].state_in is None else before.state_out

    def reads(chunk: Sequence[date]) -> Sequence[Rows]:
        key, _ = _walk_key(inputs, version, chunk, state_before(chunk[0]), upstream)
        return () if key in _walks else inputs.reads(version, chunk)

    def compute(chunk: Sequence[date], _: np.ndarray | None) -> tuple[pl.DataFrame, None]:
        walk = _walk(inputs, version, chunk, state_before(chunk[0]), upstream)
        return rows(strategy, walk).select(list(frame_schema(run.table))), None

    for run_of_days in consecutive(days):
        yield Chain(
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
            strategy=version["strategy_name"],
            reads=reads,
        )


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
    inputs = LedgerInputs.read(run, market_data, strategies, risk_parameters, configurations)
    yield from _derived(run, inputs, lambda strategy, walk: _of(strategy, walk.metrics))


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
    inputs = LedgerInputs.read(run, market_data, strategies, risk_parameters, configurations)
    yield from _derived(run, inputs, lambda strategy, walk: _of(strategy, walk.results))


def _of(strategy: int, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit(strategy, pl.Int64).alias("strategy_id"))
