"""Run the compiled loops over candles, which define the bits of averages and indicators.

Each loop is one pass from a carried state to the states at the end of each day. They share one file because Numba's
cache checks only the file of the function it compiled for changes, not the files of the functions that it calls.

The form of a recursion is `kernel(carried, ends, states, line, *inputs, *parameters)`. `carried` is the state before
the first candle and `ends[d]` the number of candles up to the end of day d. The kernel writes one number per candle to
`line`, and its state at the end of day d to `states[d]`. NaN stands for "none"; inputs that are NaN are skipped.

The loops are compiled without fastmath: each + - * / is one IEEE 754 double operation in the order written, none fused
or reordered. The averages are written as y + alpha (x - y), as in Polars 2.1's `ewm_mean(adjust=False)`, which gives
the same bits with the carried value in front, in about three times the time.
"""

from __future__ import annotations

import numpy as np

from algobot_assets.compute.native import compiled


@compiled(nogil=True)
def averaged(seen: float, value: float, x: float, n: int, alpha: float) -> tuple[float, float]:
    """Return (seen, value) of a recursive average after `x`.

    While `seen` < n, `value` is the sum of the values seen, added from the oldest on. When `seen` reaches n it becomes
    their mean, and from then on y + alpha (x - y).
    """
    if seen == n:
        return seen, value + alpha * (x - value)
    value = value + x
    if seen + 1 == n:
        value = value / n
    return seen + 1, value


@compiled(nogil=True)
def average(
    carried: np.ndarray,
    ends: np.ndarray,
    states: np.ndarray,
    line: np.ndarray,
    values: np.ndarray,
    n: int,
    alpha: float,
) -> None:
    """Compute `Chunk.ema` and `Chunk.wilder`. State: values seen, and their sum or average."""
    seen, value = carried[0], carried[1]
    i = 0
    for day in range(len(ends)):
        while i < ends[day]:
            line[i] = np.nan
            if not np.isnan(values[i]):
                seen, value = averaged(seen, value, values[i], n, alpha)
                if seen == n:
                    line[i] = value
            i += 1
        states[day, 0], states[day, 1] = seen, value


@compiled(nogil=True)
def crossed(a: np.ndarray, b: np.ndarray, before_a: float, before_b: float, upwards: bool) -> np.ndarray:
    """Return where `a` crosses `b`; `before_a` and `before_b` are their values at the candle before the first."""
    out = np.empty(a.size, np.bool_)
    if a.size > 0:
        out[0] = (before_a <= before_b and a[0] > b[0]) if upwards else (before_a >= before_b and a[0] < b[0])
    if upwards:
        for i in range(1, a.size):
            out[i] = (a[i - 1] <= b[i - 1]) & (a[i] > b[i])
    else:
        for i in range(1, a.size):
            out[i] = (a[i - 1] >= b[i - 1]) & (a[i] < b[i])
    return out


@compiled(nogil=True)
def settle(decided: np.ndarray, condition: np.ndarray, signal: int) -> None:
    """Set `signal` where the condition holds."""
    for i in range(decided.size):
        decided[i] = signal if condition[i] else decided[i]


@compiled(nogil=True)
def session_sum(
    carried: np.ndarray, ends: np.ndarray, states: np.ndarray, line: np.ndarray, values: np.ndarray
) -> None:
    """Compute `Chunk.session_sum`. No state."""
    i = 0
    for day in range(len(ends)):
        total = 0.0
        while i < ends[day]:
            line[i] = np.nan
            if not np.isnan(values[i]):
                total += values[i]
                line[i] = total
            i += 1


@compiled(nogil=True)
def rsi(carried: np.ndarray, ends: np.ndarray, states: np.ndarray, line: np.ndarray, close: np.ndarray, n: int) -> None:
    """Compute `indicators.rsi`. State: previous close, changes seen, average rise, average fall."""
    previous, seen, rise, fall = carried[0], carried[1], carried[2], carried[3]
    alpha = 1.0 / n
    i = 0
    for day in range(len(ends)):
        while i < ends[day]:
            line[i] = np.nan
            change = close[i] - previous
            if not np.isnan(change):
                _, rise = averaged(seen, rise, max(change, 0.0), n, alpha)
                seen, fall = averaged(seen, fall, max(-change, 0.0), n, alpha)
                if seen == n:
                    both = rise + fall
                    line[i] = 100.0 * (rise / both) if both > 0.0 else 50.0
            previous = close[i]
            i += 1
        states[day, 0], states[day, 1], states[day, 2], states[day, 3] = previous, seen, rise, fall


@compiled(nogil=True)
def atr(
    carried: np.ndarray,
    ends: np.ndarray,
    states: np.ndarray,
    line: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    n: int,
) -> None:
    """Compute `indicators.atr`. State: previous close, ranges seen, their average."""
    previous, seen, average = carried[0], carried[1], carried[2]
    alpha = 1.0 / n
    i = 0
    for day in range(len(ends)):
        while i < ends[day]:
            line[i] = np.nan
            if not np.isnan(previous + high[i] + low[i]):
                true_range = max(high[i], previous) - min(low[i], previous)
                seen, average = averaged(seen, average, true_range, n, alpha)
                if seen == n:
                    line[i] = average
            previous = close[i]
            i += 1
        states[day, 0], states[day, 1], states[day, 2] = previous, seen, average


@compiled(nogil=True)
def session_vwap(
    carried: np.ndarray,
    ends: np.ndarray,
    states: np.ndarray,
    line: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
) -> None:
    """Compute `indicators.session_vwap`. No state."""
    i = 0
    for day in range(len(ends)):
        paid, traded = 0.0, 0.0
        while i < ends[day]:
            line[i] = np.nan
            weighted = (high[i] + low[i] + close[i]) / 3.0 * volume[i]
            if not np.isnan(weighted):
                paid += weighted
                traded += volume[i]
                if traded > 0.0:
                    line[i] = paid / traded
            i += 1
