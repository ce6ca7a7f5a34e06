"""Backtest a strategy from a user's file without storing anything."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from algobot_assets.audit.rules.look_ahead import Change
from algobot_assets.compute.ledger.terms import LedgerError
from algobot_assets.compute.sweep.run import RESULTS, Span, Sweep, run_alone
from algobot_assets.errors import AlgobotError, SettingsError
from algobot_assets.research.look_ahead import sample_look_ahead
from algobot_assets.research.request import DAY, Request, Trial, prepare
from algobot_assets.store.connection import Store


@dataclass(frozen=True)
class TryResult:
    """Result of a trial: figures of backtest_results, trades, signals by kind, signals that led to no
    order by reason, and the look-ahead found, if any."""

    trial: Trial
    parameters: dict[str, Any]
    risk: dict[str, Any]
    result: dict[str, Any]
    trades: pl.DataFrame
    buys: int
    sells: int
    unfilled: dict[str, int]
    ahead: Change | None


def try_strategy(store: Store, request: Request) -> TryResult:
    """Backtest the strategy of the file; see `Request`. Each parameter takes one value.

    Raises SettingsError, with the line of the file, if it cannot be read or run, or returns no signals.
    """
    path = Path(request.strategy).resolve()
    with error_lines_of(path):
        trial = prepare(store, request)
        if len(trial.grid) > 1:
            raise SettingsError(
                f"Several values for {', '.join(trial.grid.swept())}. Pass one each, or run `algobot sweep`."
            )
        combination = trial.grid[0]
        signal, events = Sweep(trial.strategy, trial.market, trial.account, trial.grid, []).signals(0)
        ahead = sample_look_ahead(trial, combination.parameters)
    span = Span(trial.first, trial.last + DAY)
    try:
        run = run_alone(trial.market, trial.account, signal, combination.risk, span)
    except LedgerError as error:
        if ahead is None:
            raise
        raise SettingsError(f"{verdict(ahead)} ({error})") from None
    begin = int(trial.market.first[trial.market.index(trial.first)])
    decided = signal[events[events >= begin]]
    result = run.results.row(-1, named=True)
    return TryResult(
        trial,
        combination.parameters,
        combination.risk,
        {name: result[name] for name in RESULTS},
        run.trades,
        int((decided > 0).sum()),
        int((decided < 0).sum()),
        run.unfilled.drop("day").sum().row(0, named=True),
        ahead,
    )


def verdict(ahead: Change | None, decided: int = 1) -> str:
    """Return the verdict of the look-ahead check on a strategy that made `decided` signals."""
    if ahead is not None:
        return (
            f"LOOKS AHEAD: the signal of {ahead.timestamp:%Y-%m-%d %H:%M} changes with candles from "
            f"{ahead.cut:%Y-%m-%d %H:%M} on, which come after it. Its figures are worthless."
        )
    if not decided:
        return "No look-ahead found, but there was no signal to test."
    return "No look-ahead: cutting off or poisoning later candles changes no signal before them."


@contextmanager
def error_lines_of(path: Path) -> Iterator[None]:
    """Turn errors raised in the file into a SettingsError with the line; let others pass."""
    try:
        yield
    except Exception as error:
        origin = error.__cause__ if isinstance(error, AlgobotError) else error
        line = None if origin is None else _line(origin, path)
        if line is None:
            raise
        what = origin.msg if isinstance(origin, SyntaxError) else str(origin)
        raise SettingsError(f"{path.name}, line {line}: {type(origin).__name__}: {what}") from error


def _line(error: BaseException, path: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
