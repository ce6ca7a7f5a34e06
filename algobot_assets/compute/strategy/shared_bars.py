"""Share bars between many runs over the same candles, so that an average is computed once per distinct parameter.

Memory is bounded. A test compares every signal with that of plain `Bars`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count
from threading import Lock
from typing import NamedTuple

import numpy as np
import polars as pl

from algobot_assets.compute.carry import Chunk, Days
from algobot_assets.compute.strategy.bars import Bars

_Key = tuple[object, ...]


class _Line(NamedTuple):
    """A series, its values with NaN for none, and a mask of the values that are missing."""

    series: pl.Series
    values: np.ndarray
    missing: np.ndarray | None


def _line(series: pl.Series, values: np.ndarray) -> _Line:
    missing = np.isnan(values)
    return _Line(series, values, missing if missing.any() else None)


class Shared:
    """Candles of one market, and a cache of the lines computed from them of at most `most_bytes`.

    Threads can share it. The least recently used line is dropped first, and recomputed when it is needed.
    """

    def __init__(
        self, candles: pl.DataFrame, indicators: pl.DataFrame, days: Days, most_bytes: int = 400_000_000
    ) -> None:
        self.days = days
        self._candles, self._indicators, self._most = candles, indicators, most_bytes
        self._lock = Lock()
        self._tokens = count(1)
        #: Lines by what they are, in order of use; and by the identity of their series, which they keep alive.
        self._lines: OrderedDict[_Key, _Line] = OrderedDict()
        self._known: dict[int, tuple[int, _Line]] = {}
        self._fixed: dict[str, pl.Series] = {}
        self._bytes = 0
        self._plain = Bars(candles, indicators, days)
        names = [name for name in indicators.columns if name != "timestamp"]
        self.declared = {name: self._fix(f"indicator {name}", indicators[name]) for name in names}

    def _fix(self, name: str, series: pl.Series) -> pl.Series:
        self._fixed[name] = series
        self._known[id(series)] = next(self._tokens), _line(series, self._plain._values(series))
        return series

    def bars(self) -> SharedBars:
        """Return the bars for one run of a strategy."""
        return SharedBars(self)

    def column(self, name: str) -> pl.Series:
        """Return a column of the candles as Float64."""
        with self._lock:
            return self._fixed[name] if name in self._fixed else self._fix(name, getattr(self._plain, name))

    def known(self, series: pl.Series) -> _Line | None:
        """Return the line of a shared series; None for a series of a single run."""
        found = self._known.get(id(series))
        return found[1] if found is not None and found[1].series is series else None

    def get(self, call: _Key, inputs: Sequence[pl.Series], make: Callable[[], pl.Series], bars: Bars) -> _Line:
        """Return the line of `call` on `inputs`: cached if every input is shared, otherwise made for this run only."""
        with self._lock:
            held = [self._known.get(id(x)) for x in inputs]
            key: _Key | None = (*call, *(item[0] for item in held if item is not None))
            if None in held:
                key = None
            elif key is not None and key in self._lines:
                self._lines.move_to_end(key)
                return self._lines[key]
        made = make()
        line = _line(made, Chunk._values(bars, made))
        if key is not None:
            with self._lock:
                if key not in self._lines:
                    self._keep(key, line)
                line = self._lines.get(key, line)
        return line

    def _keep(self, key: _Key, line: _Line) -> None:
        size = 2 * line.values.nbytes + (0 if line.missing is None else line.missing.nbytes)
        while self._lines and self._bytes + size > self._most:
            _, old = self._lines.popitem(last=False)
            del self._known[id(old.series)]
            self._bytes -= 2 * old.values.nbytes + (0 if old.missing is None else old.missing.nbytes)
        if self._bytes + size <= self._most:
            self._lines[key] = line
            self._known[id(line.series)] = next(self._tokens), line
            self._bytes += size


class SharedBars(Bars):
    """`Bars` from the market's first candle on, with recursions looked up in `Shared`. They keep no state."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared._candles, pl.DataFrame(), shared.days)
        self._shared = shared
        self._indicators = dict(shared.declared)
        self._inputs = list(self._indicators.values())

    def scan(
        self,
        call: str,
        kernel: Callable[..., None],
        initial: Sequence[float],
        inputs: Sequence[pl.Series],
        *parameters: float,
    ) -> pl.Series:
        def make() -> pl.Series:
            return Chunk.scan(self, call, kernel, initial, inputs, *parameters)

        return self._served(self._shared.get((call, kernel, tuple(initial), parameters), inputs, make, self))

    def rolling_sum(self, x: pl.Series, n: int) -> pl.Series:
        def make() -> pl.Series:
            return Chunk.rolling_sum(self, x, n)

        return self._served(self._shared.get(("rolling sum", n), [x], make, self))

    def _served(self, line: _Line) -> pl.Series:
        self._arrays[id(line.series)] = line.series, line.values
        return self._input(line.series)

    def _before(self, x: pl.Series) -> float:
        return np.nan  # the first candle is the market's first

    def _missing(self, x: pl.Series) -> np.ndarray | None:
        line = self._shared.known(x)
        return super()._missing(x) if line is None else line.missing

    def _values(self, x: pl.Series) -> np.ndarray:
        line = self._shared.known(x)
        return super()._values(x) if line is None else line.values

    def _column(self, name: str) -> pl.Series:
        return self._shared.column(name)
