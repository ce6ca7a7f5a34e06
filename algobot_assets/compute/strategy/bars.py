"""Give a strategy its bars: candles as float64 series, the stored indicators, and the averages and sums of `carry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import polars as pl

from algobot_assets.compute import kernels
from algobot_assets.compute.candles import as_floats
from algobot_assets.compute.carry import Chunk, Days


class Bars(Chunk):
    """One chunk of one market, as a strategy sees it.

    All series are Float64 with one value per candle, in the quote asset (volume: in the base asset). Null means "no
    value yet" and makes a comparison false.

    >>> from datetime import date
    >>> candles = pl.DataFrame({"close": [10.0, 11.0, 9.0, 12.0]})
    >>> bars = Bars(candles, pl.DataFrame(), Days([date(2024, 1, 1)], pl.Series([date(2024, 1, 1)] * 4)))
    >>> bars.ema(bars.close, 2).to_list()
    [None, 10.5, 9.5, 11.166666666666666]
    >>> bars.decide((1, bars.crosses_above(bars.close, 11.5)), (-1, bars.crosses_below(bars.close, 9.5))).to_list()
    [0, 0, -1, 1]
    """

    def __init__(
        self,
        candles: pl.DataFrame,
        indicators: pl.DataFrame,
        days: Days,
        state: np.ndarray | None = None,
    ) -> None:
        super().__init__(days, state)
        self._candles = candles
        self._indicators = {name: indicators[name] for name in indicators.columns if name != "timestamp"}
        self._inputs = list(self._indicators.values())

    @cached_property
    def open(self) -> pl.Series:
        """The price of the first trade."""
        return self._column("open")

    @cached_property
    def high(self) -> pl.Series:
        """The highest price."""
        return self._column("high")

    @cached_property
    def low(self) -> pl.Series:
        """The lowest price."""
        return self._column("low")

    @cached_property
    def close(self) -> pl.Series:
        """The price of the last trade."""
        return self._column("close")

    @cached_property
    def volume(self) -> pl.Series:
        """The quantity traded, in the base asset."""
        return self._column("volume")

    def indicator(self, name: str) -> pl.Series:
        """Return a stored indicator. KeyError if the strategy does not declare it."""
        if name not in self._indicators:
            raise KeyError(f"the strategy reads indicator {name!r} without declaring it")
        return self._indicators[name]

    def rolling_sum(self, x: pl.Series, n: int) -> pl.Series:
        """Return `Chunk.rolling_sum`, as an input that must be warm before a signal is given."""
        return self._input(super().rolling_sum(x, n))

    def scan(
        self,
        call: str,
        kernel: Callable[..., None],
        initial: Sequence[float],
        inputs: Sequence[pl.Series],
        *parameters: float,
    ) -> pl.Series:
        """Return `Chunk.scan`, as an input that must be warm before a signal is given."""
        return self._input(super().scan(call, kernel, initial, inputs, *parameters))

    def decide(self, *rules: tuple[int, pl.Series]) -> pl.Series:
        """Return the signals (Int32: 1, -1, 0) of rules, each a pair of a signal and its condition.

        The first rule whose condition holds decides; if none holds, the signal is 0. A null condition is false. As long
        as an input is null (a declared indicator, or an average or sum computed by the bars), the signal is 0 too.
        """
        decided = np.zeros(self.days.candles, dtype=np.int32)
        for signal, condition in reversed(rules):
            kernels.settle(decided, self._truth(condition), signal)
        for series in self._inputs:
            missing = self._missing(series)
            if missing is not None:
                kernels.settle(decided, missing, 0)
        return pl.Series("signal", decided)

    def _column(self, name: str) -> pl.Series:
        return as_floats(self._candles, name).to_series()

    def _input(self, series: pl.Series) -> pl.Series:
        self._inputs.append(series)
        return series
