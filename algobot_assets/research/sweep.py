"""Run parameter sweeps, store them chunk by chunk, resume them, and rank their results.

A sweep's key is the digest of its candles, settings, grid and code. A request with the same key keeps the stored
results and computes the rest; a request with another key is another sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.compute.metrics.deflated_sharpe import deflated_of
from algobot_assets.compute.sweep.run import METRICS, RESULTS, Span, Sweep, SweepChunk, run_alone
from algobot_assets.declared.parameters import canonical
from algobot_assets.errors import SettingsError
from algobot_assets.research.request import DAY, Request, Trial, prepare, returns_of
from algobot_assets.schema.frames import schema_of
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_in
from algobot_assets.store.reader import query

Progress = Callable[[int, int], None]
_TRIED = ("strategy_type", "symbol", "interval", "first_day", "last_day", "grid", "settings", "combinations", "key")


@dataclass(frozen=True)
class Ranked:
    """The best combinations of a sweep by a metric. `frame`: combination, the swept parameters, RESULTS. `computed`:
    combinations computed by this call. `deflated`: deflated Sharpe ratio of the first row among all combinations, None
    if it is undefined."""

    sweep_id: int
    trial: Trial
    frame: pl.DataFrame
    computed: int
    deflated: float | None


def sweep(
    store: Store,
    request: Request,
    *,
    metric: str = "sharpe_ratio",
    top: int = 10,
    least_trades: int = 0,
    progress: Progress = lambda done, total: None,
) -> Ranked:
    """Compute and store the missing combinations of a sweep, and rank all of them; see `Request` and `prepare`.

    Calls `progress(done, total)` after every chunk. Raises AlgobotError for an invalid request.
    """
    check_metric(metric)
    trial = prepare(store, request)
    sweep_id = store.retrying(lambda c: register(c, "sweeps", trial, trial.key), "Recording the sweep")
    computed = _run(store, trial, sweep_id, progress)
    frame = rank(store, sweep_id, trial, metric, top, least_trades)
    return Ranked(sweep_id, trial, frame, computed, _deflated(store, sweep_id, trial, frame))


def check_metric(metric: str) -> None:
    """Raise SettingsError if combinations cannot be ranked by this metric."""
    if metric not in METRICS:
        raise SettingsError(f"{metric!r} is not a metric. Use one of {', '.join(METRICS)}.")


def register(connection: psycopg.Connection, table: str, trial: Trial, key: bytes, **more: object) -> int:
    """Return the id of the row with that key; insert the row if it does not exist."""
    grid = canonical({"parameters": trial.grid.parameters, "risk": trial.grid.risk})
    values = dict(
        zip(
            _TRIED,
            (
                trial.strategy.name,
                trial.symbol,
                trial.interval,
                trial.first,
                trial.last,
                grid,
                canonical(trial.settings),
                len(trial.grid),
                key,
            ),
            strict=True,
        ),
        **more,
    )
    name = sql.Identifier(table)
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (key) DO NOTHING").format(
            name, sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join([sql.Placeholder()] * len(values))
        ),
        list(values.values()),
    )
    ((number,),) = connection.execute(sql.SQL("SELECT id FROM {} WHERE key = %s").format(name), (key,)).fetchall()
    return int(number)


def _run(store: Store, trial: Trial, sweep_id: int, progress: Progress) -> int:
    """Compute and store the missing chunks; return the number of combinations computed."""
    grid, total = trial.grid, len(trial.grid)
    held = query(store, "SELECT combination FROM sweep_results WHERE sweep_id = %s", (sweep_id,))
    stored = np.zeros(total, dtype=bool)
    stored[held["combination"].to_numpy()] = True
    progress(int(stored.sum()), total)
    if stored.all():
        return 0
    work = Sweep(trial.strategy, trial.market, trial.account, grid, [Span(trial.first, trial.last + DAY)])
    risks = [canonical(risk) for risk in grid.risk_sets]
    computed = 0
    for chunk in work.chunks(lambda numbers: bool(stored[numbers].all())):
        store_chunk = partial(_store, sweep_id=sweep_id, frame=_rows(trial, sweep_id, chunk, risks))
        store.retrying(store_chunk, f"Storing results of sweep {sweep_id}")
        stored[chunk.numbers] = True
        computed += len(chunk.numbers)
        progress(int(stored.sum()), total)
    with store.transaction() as connection:
        connection.execute(
            "UPDATE sweeps SET finished_at = now() WHERE id = %s AND finished_at IS NULL AND combinations = "
            "(SELECT count(*) FROM sweep_results WHERE sweep_id = %s)",
            (sweep_id, sweep_id),
        )
    return computed


def _rows(trial: Trial, sweep_id: int, chunk: SweepChunk, risks: list[str]) -> pl.DataFrame:
    terms = trial.grid.risk_set_count
    rules = {rule: canonical(trial.grid.parameter_set(rule)) for rule in np.unique(chunk.numbers // terms).tolist()}
    numbers = chunk.numbers.tolist()
    return (
        chunk.frames[0]
        .with_columns(
            pl.lit(sweep_id, pl.Int64).alias("sweep_id"),
            pl.Series("combination", numbers, dtype=pl.Int32),
            pl.Series("parameters", [rules[number // terms] for number in numbers], dtype=pl.String),
            pl.Series("risk", [risks[number % terms] for number in numbers], dtype=pl.String),
        )
        .select(list(schema_of("sweep_results")))
    )


def _store(connection: psycopg.Connection, sweep_id: int, frame: pl.DataFrame) -> None:
    """Store the rows of a chunk that no other process has stored meanwhile."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('algobot.sweep'), %s)", (sweep_id % 2**31,))
    there = connection.execute(
        "SELECT combination FROM sweep_results WHERE sweep_id = %s AND combination = ANY(%s)",
        (sweep_id, frame["combination"].to_list()),
    ).fetchall()
    missing = frame.filter(~pl.col("combination").is_in([row[0] for row in there]))
    copy_in(connection, "sweep_results", missing, binary=False)


def rank(store: Store, sweep_id: int, trial: Trial, metric: str, top: int, least_trades: int = 0) -> pl.DataFrame:
    """Return the `top` combinations by `metric`, with their swept parameters; undefined values come last."""
    rows = query(
        store,
        f"SELECT combination, {', '.join(RESULTS)} FROM sweep_results WHERE sweep_id = %s AND total_trades >= %s "
        f"ORDER BY {metric} DESC NULLS LAST, combination LIMIT %s",
        (sweep_id, least_trades, top),
        schema_of("sweep_results"),
    )
    combinations = [trial.grid[number] for number in rows["combination"].to_list()]
    swept = [
        pl.Series(name, [(item.parameters | item.risk)[name] for item in combinations], strict=False)
        for name in trial.grid.swept()
    ]
    return rows.select(pl.col("combination"), *swept, *RESULTS)


def _deflated(store: Store, sweep_id: int, trial: Trial, frame: pl.DataFrame) -> float | None:
    """Return the deflated Sharpe ratio of the first row, run again because its daily returns are not stored."""
    if frame.is_empty() or len(trial.grid) < 2:
        return None
    sharpes = query(store, "SELECT sharpe_ratio::float8 AS sharpe FROM sweep_results WHERE sweep_id = %s", (sweep_id,))[
        "sharpe"
    ]
    number = frame["combination"][0]
    equity = daily_equity(trial, number)
    value = deflated_of(
        returns_of(equity, float(trial.account.initial_balance)),
        sharpes.cast(pl.Float64).fill_null(np.nan).to_numpy(),
        len(trial.grid),
    )
    return None if np.isnan(value) else value


def daily_equity(trial: Trial, number: int) -> np.ndarray:
    """Return the equity at the end of each day of one combination, run part by part as the ledger is."""
    work = Sweep(trial.strategy, trial.market, trial.account, trial.grid, [])
    signal, _ = work.signals(number // trial.grid.risk_set_count)
    risk, span = trial.grid[number].risk, Span(trial.first, trial.last + DAY)
    results = run_alone(trial.market, trial.account, signal, risk, span).results
    return results["final_capital"].cast(pl.Float64).to_numpy()
