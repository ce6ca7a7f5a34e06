"""Run every combination of a grid over the same candles and return the figures of backtest_results for each.

Signals are computed once per set of strategy parameters and serve all risk parameters; averages are computed once per
distinct parameter (`shared_bars`). The ledger visits only signals, and candles at which an open lot can matter. Every
row has the bits of `run_ledger` on `compute_signals` of the same candles; a test compares them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl

from algobot_assets.compute import signals
from algobot_assets.compute.carry import Days
from algobot_assets.compute.ledger import kernel as k
from algobot_assets.compute.ledger.run import CandleArrays, LedgerRun, candle_arrays, figures, run_ledger
from algobot_assets.compute.ledger.state import new_state
from algobot_assets.compute.ledger.terms import (
    CostTerms,
    LedgerError,
    RiskTerms,
    RuleTerms,
    StrategyTerms,
    Terms,
    day_ms,
)
from algobot_assets.compute.metrics import performance
from algobot_assets.compute.strategy import Strategy
from algobot_assets.compute.strategy.shared_bars import Shared
from algobot_assets.compute.sweep.grid import Grid
from algobot_assets.compute.units import from_units

COUNTS = ("total_trades", "winning_trades", "losing_trades", "open_trades", "ambiguous_stops")
RESULTS = (*performance.FIGURES, *COUNTS[:4], "open_profit", COUNTS[4])
"""Columns of a result, as backtest_results has them."""
METRICS = (*performance.FIGURES[1:], "open_profit")
"""Figures by which combinations can be ranked; more is always better (max_drawdown is a negative fraction)."""
_CHUNK_ROWS = 4_096
_CHUNK_CANDLES = 500_000_000
_CHUNK_BYTES = 64 << 20
"""A chunk is computed and stored at once: a few seconds of work, and its signals must fit this."""


@dataclass(frozen=True)
class Part:
    """The rules and costs in force from `first` up to the next part."""

    first: date
    rules: RuleTerms
    costs: CostTerms


@dataclass(frozen=True)
class AccountTerms:
    """The terms that all combinations share. `parts` ascend; the first holds from the market's first day on."""

    initial_balance: Any
    shorting: bool
    stop_path: Literal["1m"] | None
    parts: tuple[Part, ...] = (Part(date(1970, 1, 1), RuleTerms(), CostTerms()),)

    def terms(self, risk: dict[str, Any], begin: date, day: date, until: date | None = None) -> Terms:
        """Return the ledger's terms on `day` for an account that started on `begin`."""
        part = [part for part in self.parts if part.first <= day][-1]
        strategy = StrategyTerms(
            self.initial_balance, risk["risk_per_trade"], begin, until, self.shorting, self.stop_path
        )
        limits = RiskTerms(**{name: value for name, value in risk.items() if name != "risk_per_trade"})
        return Terms(strategy, limits, part.rules, part.costs)


class Market:
    """The candles of one market for a sweep, from the market's first one on, so that averages are warm.

    candles      timestamp, prices and volume as decimals, ascending
    ends         boundary of each candle
    days         consecutive days
    indicators   those that the strategy declares, or None
    minutes      for stop_path 1m: the rows as the kernel reads them
    as_of_ms     boundary of the last closed candle, if the last day is unfinished
    """

    def __init__(
        self,
        candles: pl.DataFrame,
        ends: pl.Series,
        days: Days,
        indicators: pl.DataFrame | None = None,
        *,
        minutes: np.ndarray | None = None,
        as_of_ms: int | None = None,
        label: str = "this market",
    ) -> None:
        self.candles, self.days, self.label = candles, days, label
        self.indicators = indicators
        self.arrays: CandleArrays = candle_arrays(candles, ends, label)
        #: As strategies see them; converted once for all sweeps of the market.
        self.floats = candles.with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Float64)).rechunk()
        self.blocks = k.block_ranges(self.arrays.high, self.arrays.low, self.arrays.close)
        self.first = np.append(0, days.ends).astype(np.int64)
        self.minutes = np.empty((4, 0)) if minutes is None else minutes
        self.as_of_ms = as_of_ms

    def index(self, day: date) -> int:
        """Return the index of `day` among the days."""
        return (day - self.days.days[0]).days

    def clock(self, last: date) -> float:
        """Return the exclusive end of `last` in ms, or that of its last closed candle if it is unfinished."""
        end = day_ms(last) + k.DAY_MS
        if self.as_of_ms is None or last < self.days.days[-1]:
            return end
        return min(end, max(day_ms(last), float(self.as_of_ms)))


@dataclass(frozen=True)
class Span:
    """The days [first, end) of one account, which starts flat on `first`."""

    first: date
    end: date


@dataclass(frozen=True)
class SweepChunk:
    """Results of some combinations: their numbers, and per span one frame with a row for each, RESULTS as columns."""

    numbers: np.ndarray
    frames: list[pl.DataFrame]


class Sweep:
    """One strategy, one market, one grid; see `chunks`."""

    def __init__(
        self, strategy: Strategy, market: Market, account: AccountTerms, grid: Grid, spans: Sequence[Span]
    ) -> None:
        declared = signals.declared_indicators(strategy, market.candles, market.indicators, market.days)
        self.strategy, self.market, self.account, self.grid, self.spans = strategy, market, account, grid, spans
        self._shared = Shared(market.floats, declared, market.days)
        self._begin = new_state(StrategyTerms(account.initial_balance, 1, date(1970, 1, 1)))
        self._knobs = [self._knobs_of(part) for part in account.parts]
        candles = max(1, market.days.candles)
        self._rows = max(1, min(_CHUNK_ROWS, _CHUNK_CANDLES // candles))
        self._rules_at_once = max(1, min(self._rows // grid.risk_set_count, _CHUNK_BYTES // (2 * candles)))

    def signals(self, rule: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the signals of the set of strategy parameters with that number, and the indices of those not 0."""
        parameters = self.grid.parameter_set(rule)
        return k.decisions(signals.decide(self.strategy, self._shared.bars(), parameters).to_numpy())

    def chunks(self, done: Callable[[np.ndarray], bool] = lambda numbers: False) -> Iterator[SweepChunk]:
        """Yield all results, chunk by chunk, in a fixed order that is not that of the numbers.

        `done` says whether the chunk of these numbers is stored already; it is then skipped. Memory does not grow with
        the grid. LedgerError if an account passes what the ledger can count.
        """
        order = list(self.grid.in_z_order())
        terms = self.grid.risk_set_count
        with ThreadPoolExecutor(thread_count()) as pool:
            for at in range(0, len(order), self._rules_at_once):
                rules = order[at : at + self._rules_at_once]
                pieces = [range(i, min(i + self._rows, terms)) for i in range(0, terms, self._rows)]
                numbers = [
                    np.concatenate([rule * terms + np.arange(piece.start, piece.stop) for rule in rules])
                    for piece in pieces
                ]
                missing = [i for i, some in enumerate(numbers) if not done(some)]
                if not missing:
                    continue
                decided = dict(zip(rules, pool.map(self.signals, rules), strict=True))
                for i in missing:
                    yield SweepChunk(numbers[i], self._figures(pool, rules, decided, pieces[i]))

    def _figures(
        self,
        pool: ThreadPoolExecutor,
        rules: list[int],
        decided: dict[int, tuple[np.ndarray, np.ndarray]],
        piece: range,
    ) -> list[pl.DataFrame]:
        """Return a frame per span. The work is divided so that every thread has some, however few the rules."""
        slices = max(1, min(len(piece), -(-2 * thread_count() // len(rules))))
        bounds = np.linspace(piece.start, piece.stop, slices + 1).astype(int)
        tasks = [(rule, a, b) for rule in rules for a, b in pairwise(bounds) if a < b]
        rows = list(pool.map(lambda task: self._walked(task[0], *decided[task[0]], task[1], task[2]), tasks))
        spans = enumerate(self.spans)
        return [self._frame(np.concatenate([of_task[i] for of_task in rows]), span) for i, span in spans]

    def _walked(self, rule: int, signal: np.ndarray, events: np.ndarray, begin: int, end: int) -> list[np.ndarray]:
        return [self._span(rule, signal, events, begin, end, span) for span in self.spans]

    def _span(self, rule: int, signal: np.ndarray, events: np.ndarray, begin: int, end: int, span: Span) -> np.ndarray:
        market = self.market
        lo, hi = market.index(span.first), market.index(span.end)
        days = day_ms(span.first) + k.DAY_MS * np.arange(hi - lo)
        head = self._begin.copy()
        head[k.START] = days[0]
        starts = [max(part.first, span.first) for part in self.account.parts]
        held = [i for i, day in enumerate(starts) if day < span.end and (i + 1 == len(starts) or starts[i + 1] > day)]
        parts = np.array([(starts[i] - span.first).days for i in held] + [hi - lo])
        knobs = np.ascontiguousarray(np.stack([self._knobs[i][begin:end] for i in held]))
        out = np.empty((end - begin, k.SNAPSHOT))
        clock = market.clock(market.days.days[hi - 1])
        broken = k.walk_many(
            *market.arrays, signal, events, market.blocks, market.first[lo : hi + 1], days, clock, head, knobs, parts,
            market.minutes, out,
        )  # fmt: skip
        if broken >= 0:
            combination = self.grid[rule * self.grid.risk_set_count + begin + broken]
            raise LedgerError(
                f"The account of {market.label} with {combination} passed 90,000,000 in its quote asset: beyond that "
                "its money is not exact. Start with a smaller balance."
            )
        return out

    def _knobs_of(self, part: Part) -> np.ndarray:
        """Return an array of (sets of risk parameters, KNOBS)."""
        begin = date(1970, 1, 1)
        rows = [self.account.terms(risk, begin, max(part.first, begin)).knobs() for risk in self.grid.risk_sets]
        return np.stack(rows)

    def _frame(self, rows: np.ndarray, span: Span) -> pl.DataFrame:
        return result_frame(rows, self._begin[k.INITIAL], day_ms(span.first))


def run_alone(
    market: Market,
    account: AccountTerms,
    signal: np.ndarray,
    risk: dict[str, Any],
    span: Span,
    begin: date | None = None,
    state: np.ndarray | None = None,
) -> LedgerRun:
    """Run one account over `span` with `run_ledger`, called once per part, as for the ledger's tables.

    The account started on `begin` and continues from `state`; by default it starts flat on the first day.
    """
    starts = [span.first, *(part.first for part in account.parts if span.first < part.first < span.end)]
    owned = pl.Series(market.days.days, dtype=pl.Date).to_physical().to_numpy()
    runs: list[LedgerRun] = []
    for first, end in zip(starts, [*starts[1:], span.end], strict=True):
        lo, hi = market.index(first), market.index(end)
        a, b = int(market.first[lo]), int(market.first[hi])
        of_candle = np.repeat(owned[lo:hi], np.diff(market.first[lo : hi + 1]))
        runs.append(
            run_ledger(
                CandleArrays(*(column[a:b] for column in market.arrays)),
                pl.Series(signal[a:b]),
                Days(market.days.days[lo:hi], pl.Series(of_candle).cast(pl.Date)),
                None,
                account.terms(risk, begin or span.first, first),
                state,
                minutes=market.minutes,
                as_of_ms=market.as_of_ms if hi == len(market.days.days) else None,
                label=market.label,
            )
        )
        state = runs[-1].states[market.days.days[hi - 1]]
    return LedgerRun(
        pl.concat([run.trades for run in runs]),
        pl.concat([run.metrics for run in runs]),
        pl.concat([run.results for run in runs]),
        {day: kept for run in runs for day, kept in run.states.items()},
        pl.concat([run.unfilled for run in runs]),
    )


def result_frame(rows: np.ndarray, initial: float, start: float) -> pl.DataFrame:
    """Return RESULTS as in backtest_results, one row per snapshot of an account that started at `start`, ms."""
    c = np.ascontiguousarray(rows.T)
    counts = (c[k.S_CLOSED], c[k.S_WON], c[k.S_CLOSED] - c[k.S_WON], c[k.S_LOTS], c[k.S_AMBIGUOUS])
    columns = [
        *figures(rows, initial, start),
        *(pl.Series(name, values.astype(np.int32)) for name, values in zip(COUNTS, counts, strict=True)),
        from_units("open_profit", c[k.S_OPEN_PROFIT]),
    ]
    return pl.DataFrame(columns).select(RESULTS)


def best_row(results: pl.DataFrame, metric: str, least_trades: int = 0) -> int | None:
    """Return the row with the greatest `metric` among those with enough trades, the first of equals, or None."""
    fit = results.select(pl.when(pl.col("total_trades") >= least_trades).then(pl.col(metric)).alias(metric))[metric]
    return None if fit.null_count() == len(fit) else fit.arg_max()


def thread_count() -> int:
    """Return the number of processors that this process can use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
