"""Walk-forward: choose parameters on train windows, test them on the days after, and join the tests into one result.

Signals start at the market's first candle, so that averages are warm in every window. The account of a train window
starts flat on its first day and sees no candle after its last. The joined account trades all test windows in turn.
When the parameters change, open lots keep the levels set at their entry, signals of the new parameters close them, and
an order decided at the last close is still filled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import psycopg

from algobot_assets.audit.rules.look_ahead import Change
from algobot_assets.compute.ledger.run import LedgerRun
from algobot_assets.compute.metrics.deflated_sharpe import deflated_of
from algobot_assets.compute.sweep.folds import Fold, split_folds
from algobot_assets.compute.sweep.run import RESULTS, Span, Sweep, best_row, run_alone
from algobot_assets.compute.units import ratio_column
from algobot_assets.declared.parameters import canonical
from algobot_assets.errors import WindowError
from algobot_assets.research.look_ahead import sample_look_ahead
from algobot_assets.research.request import DAY, Request, Trial, prepare, returns_of
from algobot_assets.research.sweep import Progress, check_metric, register
from algobot_assets.schema.frames import schema_of
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_in
from algobot_assets.store.lineage.digests import digest


@dataclass(frozen=True)
class Window:
    """One pair of windows: the combination chosen, its metric and its deflated Sharpe ratio (NaN if undefined) in the
    train window, and its result in the test window from a flat account."""

    fold: Fold
    combination: int
    train_metric: float
    deflated: float
    result: dict[str, Any]


@dataclass(frozen=True)
class WalkForward:
    """A walk-forward: its windows, the joined account's last result and equity by day, the deflated Sharpe ratio of
    the joined result (None if undefined), and the look-ahead found in the strategy, if any."""

    trial: Trial
    windows: list[Window]
    joined: dict[str, Any]
    equity: pl.DataFrame
    deflated: float | None
    ahead: Change | None
    id: int | None = None


def walk_forward(
    store: Store,
    request: Request,
    train_days: int,
    test_days: int,
    *,
    anchored: bool = False,
    metric: str = "sharpe_ratio",
    least_trades: int = 0,
    progress: Progress = lambda done, total: None,
) -> WalkForward:
    """Run a walk-forward and store it in place of the same one stored before. Raise AlgobotError if it is invalid."""
    check_metric(metric)
    trial = prepare(store, request)
    pairs = split_folds(trial.first, trial.last, train_days, test_days, anchored=anchored)
    found = run(trial, pairs, metric, least_trades, progress)
    how = {"metric": metric, "train_days": train_days, "test_days": test_days, "anchored": anchored}
    key = digest(trial.key, canonical({**how, "least_trades": least_trades}).encode())
    return store.retrying(lambda c: _store(c, found, key, how), "Storing the walk-forward")


def run(
    trial: Trial, pairs: list[Fold], metric: str, least_trades: int = 0, progress: Progress = lambda done, total: None
) -> WalkForward:
    """Run the walk-forward of these windows without a database."""
    spans = [Span(pair.train_first, pair.train_end) for pair in pairs]
    spans.append(Span(pairs[0].test_first, pairs[-1].test_end))  # the trials, as long as the joined result
    work = Sweep(trial.strategy, trial.market, trial.account, trial.grid, spans)
    total, done = len(trial.grid), 0
    kept = list(dict.fromkeys(["combination", "sharpe_ratio", metric, "total_trades"]))
    parts: list[list[pl.DataFrame]] = [[] for _ in spans]
    progress(0, total)
    for chunk in work.chunks():
        for part, frame in zip(parts, chunk.frames, strict=True):
            numbered = frame.with_columns(pl.Series("combination", chunk.numbers, dtype=pl.Int64))
            part.append(numbered.select(kept))
        done += len(chunk.numbers)
        progress(done, total)
    trials = [pl.concat(part).sort("combination") for part in parts]
    windows: list[Window] = []
    joined: list[LedgerRun] = []
    state = None
    for pair, train in zip(pairs, trials[:-1], strict=True):
        row = best_row(train, metric, least_trades)
        if row is None:
            short = " It is NULL under 30 days: use longer windows or another metric." * (
                metric in ("sharpe_ratio", "annual_return")
            )
            raise WindowError(
                f"No combination has a {metric} in the train window {pair.train_first} to {pair.train_end - DAY}."
                + short
            )
        combination = trial.grid[train["combination"][row]]
        signal, _ = work.signals(combination.number // trial.grid.risk_set_count)
        test = Span(pair.test_first, pair.test_end)
        result = run_alone(trial.market, trial.account, signal, combination.risk, test).results.row(-1, named=True)
        joined.append(
            run_alone(trial.market, trial.account, signal, combination.risk, test, pairs[0].test_first, state)
        )
        state = joined[-1].states[pair.test_end - DAY]
        in_train = run_alone(
            trial.market, trial.account, signal, combination.risk, Span(pair.train_first, pair.train_end)
        )
        windows.append(
            Window(
                pair,
                combination.number,
                float(train[metric][row]),
                _deflated(trial, in_train.results, train),
                {name: result[name] for name in RESULTS},
            )
        )
    results = pl.concat(
        [run.results.with_columns(pl.lit(i, pl.Int32).alias("number")) for i, run in enumerate(joined, start=1)]
    )
    value = _deflated(trial, results, trials[-1])
    first = trial.grid[windows[0].combination]
    return WalkForward(
        trial,
        windows,
        {name: results.row(-1, named=True)[name] for name in RESULTS},
        results.select("day", "number", pl.col("final_capital").alias("equity")),
        None if np.isnan(value) else value,
        sample_look_ahead(trial, first.parameters),
    )


def _deflated(trial: Trial, results: pl.DataFrame, trials: pl.DataFrame) -> float:
    equity = results["final_capital"].cast(pl.Float64).to_numpy()
    others = trials["sharpe_ratio"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return deflated_of(returns_of(equity, float(trial.account.initial_balance)), others, len(trial.grid))


def _store(connection: psycopg.Connection, found: WalkForward, key: bytes, how: dict[str, Any]) -> WalkForward:
    trial = found.trial
    connection.execute("DELETE FROM walk_forwards WHERE key = %s", (key,))
    number = register(connection, "walk_forwards", trial, key, **how, deflated_sharpe=_decimal(found.deflated))
    first, end = found.windows[0].fold.test_first, found.windows[-1].fold.test_end
    rows = [_row(number, 0, {"test_first": first, "test_end": end}, found.joined)]
    for i, window in enumerate(found.windows, start=1):
        fold, combination = window.fold, trial.grid[window.combination]
        chosen = {
            "train_first": fold.train_first,
            "train_end": fold.train_end,
            "test_first": fold.test_first,
            "test_end": fold.test_end,
            "combination": window.combination,
            "parameters": canonical(combination.parameters),
            "risk": canonical(combination.risk),
            "train_metric": _decimal(window.train_metric),
            "train_deflated_sharpe": _decimal(window.deflated),
        }
        rows.append(_row(number, i, chosen, window.result))
    schema = schema_of("walk_forward_windows")
    copy_in(connection, "walk_forward_windows", pl.DataFrame(rows, schema=schema, orient="row"), binary=False)
    curve = found.equity.with_columns(pl.lit(number, pl.Int64).alias("walk_forward_id"))
    copy_in(connection, "walk_forward_equity", curve.select(list(schema_of("walk_forward_equity"))))
    connection.execute("UPDATE walk_forwards SET finished_at = now() WHERE id = %s", (number,))
    return replace(found, id=number)


def _row(number: int, window: int, chosen: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    row = dict.fromkeys(schema_of("walk_forward_windows"))
    return row | {"walk_forward_id": number, "number": window} | chosen | result


def _decimal(value: float | None) -> Decimal | None:
    """Round a figure as its column holds it."""
    rounded: Decimal | None = ratio_column("", np.array([np.nan if value is None else value]))[0]
    return rounded
