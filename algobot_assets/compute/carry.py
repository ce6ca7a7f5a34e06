"""Compute averages, sums and crossings over candles with the same bits however the candles are cut into chunks.

`Days` says which partition days a chunk covers. `Chunk` is one chunk of one market's candles with the state carried
from the day before; its methods are the primitives that indicators and strategies are built from.

A primitive looks back only through its carried state. Polars' own `shift`, `diff`, `rolling_*` and `cum_*` do not see
the candles before the chunk, so a computation that uses them changes with the chunking.

The loops themselves, which decide the bits, are in `kernels`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
import polars as pl

from algobot_assets.compute import kernels
from algobot_assets.errors import SettingsError, WindowError

MAX_WINDOW = 10_000
"""The longest window, in candles. A rolling sum carries window - 1 numbers per day."""

#: Lines allocated at once. The pages of unused lines are never touched.
_LINES = 8


class Days:
    """The partition days of a chunk, and the day to which each of its candles belongs.

    `days` ascend and include days without a candle. `of_candle` has one Date per candle, ascending, each of them in
    `days` (`schema.intervals.day_of` computes it: a 1w candle belongs to the day on which it ends). Anything else
    raises ValueError. `ends` is, for each day, the number of candles up to its end.

    >>> days = Days([date(2024, 1, 1), date(2024, 1, 2)], pl.Series([date(2024, 1, 1)] * 2 + [date(2024, 1, 2)]))
    >>> days.candles, days.ends.tolist()
    (3, [2, 3])
    """

    def __init__(self, days: Sequence[date], of_candle: pl.Series) -> None:
        self.days = tuple(days)
        listed = pl.Series(self.days, dtype=pl.Date).to_physical().to_numpy()
        if not len(listed) or (np.diff(listed) <= 0).any():
            raise ValueError("the days of a chunk must ascend, and there must be one")
        if of_candle.dtype != pl.Date or of_candle.null_count() or not of_candle.is_sorted():
            raise ValueError("the candles' days must be dates, ascending and without nulls")
        owned = of_candle.to_physical().to_numpy()
        self.candles = len(owned)
        self.ends = np.searchsorted(owned, listed, side="right")
        if (self.ends - np.searchsorted(owned, listed, side="left")).sum() != self.candles:
            raise ValueError("a candle belongs to none of the days of its chunk")


class Chunk:
    """Consecutive candles of one market in whole days (the last may be unfinished), with the state before them.

    `state` is the result of `states()` for the day before, None for the market's first candle. Each primitive takes its
    part of the state in the order of the calls, so a computation must always make the same calls. `states()` refuses a
    state that was written by other calls or with other windows.

    A primitive takes and returns Float64 series with one value per candle. Null means "no value": a recursion skips a
    value that is missing or not finite (a division by zero), and its result for that candle is null. A candle that does
    not exist (a gap) resets nothing: "previous" is always the last candle that exists.

    >>> day = date(2024, 1, 1)
    >>> chunk = Chunk(Days([day], pl.Series([day] * 3)))
    >>> chunk.ema(pl.Series([1.0, 3.0, 5.0]), 2).to_list()
    [None, 2.0, 4.0]
    >>> tomorrow = date(2024, 1, 2)
    >>> Chunk(Days([tomorrow], pl.Series([tomorrow])), chunk.states()[-1]).ema(pl.Series([7.0]), 2).to_list()
    [6.0]
    """

    def __init__(self, days: Days, state: np.ndarray | None = None) -> None:
        self.days = days
        self._state = None if state is None else np.asarray(state, dtype=np.float64)
        self._calls: list[str] = []
        self._taken = 1  # the first number of a state identifies the calls that wrote it
        self._parts: list[np.ndarray] = []
        # By identity of a series, which is held so that its id is not given to another one.
        self._arrays: dict[int, tuple[pl.Series, np.ndarray]] = {}
        self._made: dict[int, tuple[pl.Series, np.ndarray]] = {}
        self._lines: list[np.ndarray] = []
        self._truths: dict[int, tuple[pl.Series, np.ndarray]] = {}
        self._priors: dict[int, float] = {}

    def ema(self, x: pl.Series, n: int) -> pl.Series:
        """Return the exponential moving average over `n` candles, null until there are `n` values. Same unit as `x`.

        It is seeded with the mean of the first n values, then alpha = 2/(n + 1), as TA-Lib's EMA. State: the number of
        values seen, up to n, and their sum while there are fewer than n, the average from then on.
        """
        return self.scan(f"ema {n}", kernels.average, (0.0, 0.0), [x], check_window(n), 2.0 / (n + 1))

    def wilder(self, x: pl.Series, n: int) -> pl.Series:
        """Return Wilder's average over `n` candles, alpha = 1/n. Seed, nulls, state and unit are those of `ema`.

        J. Welles Wilder, New Concepts in Technical Trading Systems (1978): (y (n - 1) + x) / n.
        """
        return self.scan(f"wilder {n}", kernels.average, (0.0, 0.0), [x], check_window(n), 1.0 / n)

    def previous(self, x: pl.Series) -> pl.Series:
        """Return the value of `x` at the previous candle, null at the market's first. State: the last value."""
        values = self._values(x)
        return _series(x.name, np.concatenate([[self._before(x)], values])[:-1])

    def rolling_sum(self, x: pl.Series, n: int) -> pl.Series:
        """Return the sum over the last `n` candles, added from the oldest on; null if one of them has no value.

        A running total (`rolling_sum` of Polars or pandas) depends on where it started; a fixed order does not.
        State: the last n - 1 values.
        """
        back = check_window(n) - 1
        values = self._values(x)
        line = np.concatenate([self._carried(f"sum {n}", (np.nan,) * back), values])
        total = line[: len(values)].copy()
        for k in range(1, n):
            total += line[k : k + len(values)]
        self._parts.append(line[self.days.ends[:, None] + np.arange(back)])
        return _series(x.name, total)

    def session_sum(self, x: pl.Series) -> pl.Series:
        """Return the sum since the first candle of the day, null where `x` is null. Nothing is carried."""
        return self.scan("session", kernels.session_sum, (), [x])

    def crosses_above(self, a: pl.Series, b: pl.Series | float) -> pl.Series:
        """Return where `a` was at or below `b` and is now above it; `b` can be a number. False where one is null."""
        return self._crosses(a, b, upwards=True)

    def crosses_below(self, a: pl.Series, b: pl.Series | float) -> pl.Series:
        """Return where `a` was at or above `b` and is now below it; `b` can be a number. False where one is null."""
        return self._crosses(a, b, upwards=False)

    def scan(
        self,
        call: str,
        kernel: Callable[..., None],
        initial: Sequence[float],
        inputs: Sequence[pl.Series],
        *parameters: float,
    ) -> pl.Series:
        """Return the result of a custom recursion: one compiled pass that carries `len(initial)` numbers.

        `kernel(carried, ends, states, line, *inputs, *parameters)` is a function compiled by `numba.njit`; `kernels`
        explains its form and has examples. `initial` is the state at the market's first candle. `call` names the
        recursion and all `parameters` that its state depends on: a state written under another name is refused.
        """
        carried = np.array(self._carried(call, initial))
        arrays = [self._values(x) for x in inputs]
        states, line = np.empty((len(self.days.ends), len(carried))), self._line()
        kernel(carried, self.days.ends, states, line, *arrays, *parameters)
        self._parts.append(states)
        series = _series(inputs[0].name, line)
        self._made[id(series)] = series, line
        return series

    def states(self) -> np.ndarray:
        """Return the state at the end of each day of the chunk: float64 of shape (days, numbers).

        Call it after all primitives, and store it bit by bit. A day without candles has the state of the day before.
        The first number identifies the calls; the parts of the primitives follow in the order of the calls. NaN stands
        for "none". WindowError if the state passed in was written by other calls.
        """
        identity = float(zlib.crc32("; ".join(self._calls).encode()))
        if self._state is not None and (len(self._state) != self._taken or self._state[0] != identity):
            raise self._foreign_state()
        return np.column_stack([np.full(len(self.days.days), identity), *self._parts])

    def _crosses(self, a: pl.Series, b: pl.Series | float, *, upwards: bool) -> pl.Series:
        values = self._values(a)
        if isinstance(b, pl.Series):
            found = kernels.crossed(values, self._values(b), self._before(a), self._before(b), upwards)
        else:
            level = np.broadcast_to(float(b), values.shape)
            found = kernels.crossed(values, level, self._before(a), float(b), upwards)
        crossed = pl.Series(found)  # a comparison with NaN, which is none, is False
        self._truths[id(crossed)] = crossed, found
        return crossed

    def _before(self, x: pl.Series) -> float:
        """Return the value at the candle before the chunk, NaN for none.

        A series takes one place in the state, even if it is requested several times.
        """
        if id(x) not in self._priors:
            before = self._carried("previous", (np.nan,))
            values, ends = self._values(x), self.days.ends
            last = values[np.maximum(ends - 1, 0)] if len(values) else np.repeat(before, len(ends))
            self._parts.append(np.where(ends > 0, last, before))
            self._priors[id(x)] = float(before[0])
        return self._priors[id(x)]

    def _missing(self, x: pl.Series) -> np.ndarray | None:
        """Where `x` has no value, or None if it has a value everywhere."""
        missing = np.isnan(self._values(x))
        return missing if missing.any() else None

    def _truth(self, condition: pl.Series) -> np.ndarray:
        """Return a condition as an array, false where it is null.

        The array of a crossing is kept, so it is not converted.
        """
        if id(condition) in self._truths:
            return self._truths[id(condition)][1]
        return (condition.fill_null(False) if condition.null_count() else condition).to_numpy()

    def _line(self) -> np.ndarray:
        """Room for one number per candle, cut from one large allocation.

        A large allocation gets huge pages; one per line gets small ones, and mapping those takes longer than many a
        recursion.
        """
        if not self._lines:
            self._lines = list(np.empty((_LINES, self.days.candles)))
        return self._lines.pop()

    def _carried(self, call: str, initial: Sequence[float]) -> np.ndarray:
        self._calls.append(call)
        begin, self._taken = self._taken, self._taken + len(initial)
        if self._state is None:
            return np.array(initial, dtype=np.float64)
        if len(self._state) < self._taken:
            raise self._foreign_state()
        return self._state[begin : self._taken]

    def _foreign_state(self) -> WindowError:
        return WindowError(
            f"The state carried into {self.days.days[0]} was written by other code, windows or parameters"
            f" ({0 if self._state is None else len(self._state)} numbers). Recompute the market from its first day."
        )

    def _values(self, x: pl.Series) -> np.ndarray:
        """`x` as an array, with NaN for null and for values that are not finite."""
        if id(x) in self._arrays:
            return self._arrays[id(x)][1]
        if len(x) != self.days.candles or x.dtype != pl.Float64:
            raise ValueError(
                f"{x.name!r} must be one Float64 per candle ({self.days.candles}), not {len(x)} of {x.dtype}"
            )
        if id(x) in self._made:
            values = self._made[id(x)][1]
        else:
            values = (x.fill_null(np.nan) if x.null_count() else x).to_numpy()
        if not math.isfinite(x.sum()):  # one cheap pass; each value is looked at only if it fails
            values = np.where(np.isfinite(values), values, np.nan)
        values.setflags(write=False)  # as Polars' own arrays are: one type, so that a kernel is compiled once
        self._arrays[id(x)] = (x, values)
        return values


def check_window(n: int) -> int:
    """Return `n` if it is a window: a whole number of candles from 1 to MAX_WINDOW. Otherwise SettingsError."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_WINDOW:
        raise SettingsError(f"A window is a whole number of candles from 1 to {MAX_WINDOW}, not {n!r}.")
    return n


def _series(name: str, values: np.ndarray) -> pl.Series:
    return pl.Series(name, values, nan_to_null=True)
