"""Run the simulated ledger of one strategy version on one market: candles and signals in, trades and results out.

How a trade comes about. A signal decided at a candle's close is filled at the open of the next candle that exists, on
whatever day: 1 closes all shorts and opens a long, -1 closes all longs and, if the strategy shorts, opens a short.
Inside each candle, the entry candle included, the order is: the pending order at the open; lots whose stop or target
the open has jumped; stops and targets within the candle (a stop before a target, counted as ambiguous, unless stored
minutes decide); the mark at the close. Commission and slippage are charged as money on both sides; prices are market
prices. Final equity = initial balance + sum of net_profit + open_profit, exactly.

The state after a day starts the next one. Any split of the days into calls gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.compute.ledger import kernel as k
from algobot_assets.compute.ledger.state import new_state, unpack
from algobot_assets.compute.ledger.terms import EXIT_REASONS, LedgerError, StrategyTerms, Terms, day_ms
from algobot_assets.compute.metrics import performance
from algobot_assets.compute.units import bounds, from_units, frozen, ratio_column, steps_to_quantity, to_units

UTC_US = pl.Datetime("us", "UTC")
DAY_MS = int(k.DAY_MS)
UNFILLED_REASONS = (
    "below_min_notional",
    "rounded_to_zero",
    "no_capital",
    "at_max_open_trades",
    "outside_dates",
    "shorting_off",
)
"""Why a signal led to no order, in the order of the kernel's columns."""


class CandleArrays(NamedTuple):
    """Candles as the kernel reads them: times in ms, prices in units of 1e-8, all contiguous float64."""

    times: np.ndarray
    ends: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray


@dataclass(frozen=True, slots=True)
class LedgerRun:
    """The result of one call. The caller adds strategy_id, symbol, interval and trade_id.

    trades   one row per closed trade in the order of closing; columns of trade_history
    metrics  one row per trade, same order: entry_time (links to the trade), day, the ten figures
    results  one row per day from effective_from on; columns of backtest_results. From effective_to on, only
             the days that end with an open lot, and the day on which the last one closes
    states   the state at the end of each day from effective_from on; the state of an unfinished day must not be carried
    unfilled one row per day like `states`: signals that led to no order, by reason; columns of unfilled_signals
    """

    trades: pl.DataFrame
    metrics: pl.DataFrame
    results: pl.DataFrame
    states: dict[date, np.ndarray]
    unfilled: pl.DataFrame


def candle_arrays(candles: pl.DataFrame, ends: pl.Series, label: str = "this market") -> CandleArrays:
    """Return `candles` (timestamp, open, high, low, close; ascending) as the kernel reads them, for any number of runs.

    `ends` is the exclusive end of each candle (open + interval), in ms or as Datetime. LedgerError if prices are too
    large to be exact.
    """
    times = _ms(candles["timestamp"])
    if len(ends) != len(times) or (np.diff(times) <= 0).any():
        raise ValueError("candles must ascend and each needs its end")
    try:
        prices = [to_units(candles[name]) for name in ("open", "high", "low", "close")]
    except OverflowError as column:
        raise LedgerError(
            f"The prices of {label} pass 90,000,000 in column {column}: beyond that the ledger's money "
            "is not exact. Trade this market against another quote asset."
        ) from None
    return CandleArrays(times, _ms(ends), *prices)


def run_ledger(
    candles: pl.DataFrame | CandleArrays,
    signals: pl.Series,
    days: Days,
    ends: pl.Series | None,
    terms: Terms,
    state: np.ndarray | None = None,
    *,
    minutes: pl.DataFrame | np.ndarray | None = None,
    as_of_ms: int | None = None,
    label: str = "this market",
) -> LedgerRun:
    """Run one account through `days` under one set of terms.

    candles   one market's candles of these days (timestamp, open, high, low, close), or `candle_arrays` of
              them; then `ends` is ignored
    signals   1, -1 or 0 per candle, decided at its close; ignored on candles that open before effective_from
    days      the consecutive days of the window and the day of each candle; only the last may be unfinished
    ends      see `candle_arrays`
    state     the state at the end of the day before; None: the account starts flat on effective_from. If the
              window starts later, the days between had no candle
    minutes   stored 1m candles (timestamp, open, high, low), or `minute_array` of them; read if stop_path is 1m
    as_of_ms  boundary of the last closed candle, if the last day is unfinished
    label     market and strategy, for error messages

    If terms (risk, rules, costs) change on a day, call once per period and carry the state.
    LedgerError if the state belongs to another account, or if money passes 9e7 quote units.
    """
    if isinstance(candles, CandleArrays):
        arrays = candles
    elif ends is None:
        raise ValueError("a frame of candles needs their ends")
    else:
        arrays = candle_arrays(candles, ends, label)
    strategy = terms.strategy
    if len(arrays.times) != days.candles or len(signals) != days.candles:
        raise ValueError("one signal and one day per candle")
    if (days.days[-1] - days.days[0]).days + 1 != len(days.days):
        raise ValueError("the days of a ledger are consecutive")
    skip = next((i for i, day in enumerate(days.days) if day >= strategy.effective_from), len(days.days))
    window = days.days[skip:]
    if not window:
        return _frames(
            np.empty((0, k.TRADE)),
            np.empty((0, k.SNAPSHOT)),
            np.empty((0, k.SNAPSHOT)),
            (),
            new_state(strategy),
            strategy,
            {},
            np.empty((0, k.UNFILLED)),
        )
    if state is None:
        state = new_state(strategy, (window[0] - strategy.effective_from).days)
    head, held = unpack(state, strategy, label)
    start = head.copy()
    knobs = terms.knobs()
    signal, events = _decisions(signals)
    orders = len(events) + 1
    lots = np.zeros((len(held) + min(orders, int(knobs[k.K_MAX_LOTS])), k.LOT))
    lots[: len(held)] = held
    trades = np.empty((len(held) + orders, k.TRADE))
    marks = np.empty((len(held) + orders, k.SNAPSHOT))
    daily = np.empty((len(window), k.SNAPSHOT))
    log = np.empty((len(window), k.HEAD + len(lots) * k.LOT))
    unfilled = np.zeros((len(window), k.UNFILLED))
    first = np.append(days.ends[skip - 1] if skip else 0, days.ends[skip:]).astype(np.int64)
    day_starts = day_ms(window[0]) + k.DAY_MS * np.arange(len(window))
    clock = day_starts[-1] + k.DAY_MS
    if as_of_ms is not None:
        clock = min(clock, max(day_starts[-1], float(as_of_ms)))
    until = np.inf if strategy.effective_to is None else day_ms(strategy.effective_to)
    closed, broken = k.walk(
        *arrays,
        signal,
        events,
        k.block_ranges(arrays.high, arrays.low, arrays.close),
        first,
        day_starts,
        clock,
        until,
        head,
        lots,
        knobs,
        minute_array(minutes, terms, label),
        trades,
        marks,
        daily,
        log,
        unfilled,
    )
    if broken >= 0:
        day = window[int(np.searchsorted(first, broken, side="right")) - 1]
        raise LedgerError(
            f"The account of {label} passed 90,000,000 in its quote asset on {day}: beyond that its "
            "money is not exact. Start with a smaller initial_balance."
        )
    states = {day: log[i, : k.HEAD + int(log[i, k.LOTS]) * k.LOT].copy() for i, day in enumerate(window)}
    return _frames(trades[:closed], marks[:closed], daily, window, start, strategy, states, unfilled)


def _ms(times: pl.Series) -> np.ndarray:
    if times.dtype.base_type() == pl.Datetime:
        times = times.dt.epoch("ms")
    return frozen(times)


def _decisions(signals: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the signals as the kernel reads them, and the indices of those that are not 0."""
    least, greatest = bounds(signals)
    if signals.null_count() or least < -1 or greatest > 1:
        raise ValueError("signals are 1, -1 or 0")
    return k.decisions(signals.cast(pl.Int32).to_numpy())


def minute_array(minutes: pl.DataFrame | np.ndarray | None, terms: Terms, label: str) -> np.ndarray:
    """Return the rows open time, open, high, low; empty if the strategy does not use minutes."""
    if minutes is None or terms.strategy.stop_path is None:
        return np.empty((4, 0))
    if isinstance(minutes, np.ndarray):
        return minutes
    try:
        prices = [to_units(minutes[name]) for name in ("open", "high", "low")]
    except OverflowError:
        raise LedgerError(f"The minutes of {label} pass 90,000,000 in price: beyond that money is not exact.") from None
    return np.vstack([_ms(minutes["timestamp"]), *prices])


def _time(name: str, ms: np.ndarray) -> pl.Series:
    """Milliseconds as UTC times, null for NaN."""
    return (pl.Series(name, ms, nan_to_null=True).cast(pl.Int64) * 1000).cast(UTC_US)


def _frames(
    trades: np.ndarray,
    marks: np.ndarray,
    daily: np.ndarray,
    window: tuple[date, ...],
    start: np.ndarray,
    strategy: StrategyTerms,
    states: dict[date, np.ndarray],
    unfilled: np.ndarray,
) -> LedgerRun:
    return LedgerRun(
        _trade_frame(trades),
        _metric_frame(trades, marks, start),
        _result_frame(daily, window, start, strategy),
        states,
        _unfilled_frame(unfilled, window),
    )


def _unfilled_frame(rows: np.ndarray, window: tuple[date, ...]) -> pl.DataFrame:
    counts = np.ascontiguousarray(rows.T).astype(np.int32)
    return pl.DataFrame(
        [
            pl.Series("day", window, dtype=pl.Date),
            *(pl.Series(name, values) for name, values in zip(UNFILLED_REASONS, counts, strict=True)),
        ]
    )


def _words(name: str, words: Sequence[str], number: np.ndarray) -> pl.Series:
    """Return the words with these numbers, gathered at once because a text at a time is slower."""
    return pl.Series(name, words, dtype=pl.String).gather(number.astype(np.uint32))


def _day(ms: np.ndarray) -> pl.Series:
    return pl.Series("day", (ms // DAY_MS).astype(np.int32)).cast(pl.Date)


def _trade_frame(rows: np.ndarray) -> pl.DataFrame:
    c = np.ascontiguousarray(rows.T)
    hours = (c[k.T_EXIT_TIME] - c[k.T_ENTRY_TIME]) / 3_600_000.0
    return pl.DataFrame(
        [
            _day(c[k.T_DAY]),
            _time("entry_time", c[k.T_ENTRY_TIME]),
            _time("exit_time", c[k.T_EXIT_TIME]),
            _words("position_type", ("short", "long"), c[k.T_SIDE] > 0),
            from_units("entry_price", c[k.T_ENTRY_PRICE]),
            from_units("exit_price", c[k.T_EXIT_PRICE]),
            from_units("profit_pct", c[k.T_PCT]),
            ratio_column("duration", hours),
            from_units("commission_fee", c[k.T_FEE]),
            _time("entry_signal_time", c[k.T_ENTRY_SIGNAL]),
            _time("exit_signal_time", c[k.T_EXIT_SIGNAL]),
            steps_to_quantity("quantity", c[k.T_STEPS], c[k.T_STEP]),
            from_units("gross_profit", c[k.T_GROSS]),
            from_units("net_profit", c[k.T_NET]),
            from_units("slippage_cost", c[k.T_SLIPPAGE]),
            _words("exit_reason", ("", *EXIT_REASONS.values()), c[k.T_REASON]),
            pl.Series("ambiguous", c[k.T_AMBIGUOUS] > 0),
        ]
    )


def figures(rows: np.ndarray, initial: float, start: float) -> list[pl.Series]:
    """Return the ten columns of FIGURES, one value per snapshot row of an account that started at `start`, ms."""
    c = np.ascontiguousarray(rows.T)
    ratios = performance.figure_rows(
        initial,
        c[k.S_EQUITY],
        c[k.S_DRAWDOWN],
        c[k.S_RETURNS],
        c[k.S_MEAN],
        c[k.S_M2],
        (c[k.S_END] - start) / k.DAY_MS,
        c[k.S_CLOSED],
        c[k.S_WON],
        c[k.S_SUM_WON],
        c[k.S_SUM_LOST],
        c[k.S_SUM_PCT] / k.UNIT,
    )
    return performance.figure_columns(initial, c[k.S_EQUITY], ratios)


def _metric_frame(trades: np.ndarray, marks: np.ndarray, start: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        [
            _time("entry_time", np.ascontiguousarray(trades[:, k.T_ENTRY_TIME])),
            _day(trades[:, k.T_DAY]),
            *figures(marks, start[k.INITIAL], start[k.START]),
        ]
    )


def _result_frame(
    daily: np.ndarray, window: tuple[date, ...], start: np.ndarray, strategy: StrategyTerms
) -> pl.DataFrame:
    if strategy.effective_to is not None and window:
        closed = np.diff(daily[:, k.S_CLOSED], prepend=start[k.CLOSED])
        over = max(0, min(len(window), (strategy.effective_to - window[0]).days))
        keep = (np.arange(len(window)) < over) | (daily[:, k.S_LOTS] > 0) | (closed > 0)
        daily, window = daily[keep], tuple(day for day, kept in zip(window, keep, strict=True) if kept)
    c = np.ascontiguousarray(daily.T)
    begin = np.full(len(window), start[k.START])
    counts = (
        ("total_trades", c[k.S_CLOSED]),
        ("winning_trades", c[k.S_WON]),
        ("losing_trades", c[k.S_CLOSED] - c[k.S_WON]),
        ("open_trades", c[k.S_LOTS]),
    )
    return pl.DataFrame(
        [
            pl.Series("day", window, dtype=pl.Date),
            _time("start_date", begin),
            _time("end_date", c[k.S_END]),
            *figures(daily, start[k.INITIAL], start[k.START]),
            *(pl.Series(name, values.astype(np.int32)) for name, values in counts),
            from_units("open_profit", c[k.S_OPEN_PROFIT]),
            pl.Series("ambiguous_stops", c[k.S_AMBIGUOUS].astype(np.int32)),
        ]
    )
