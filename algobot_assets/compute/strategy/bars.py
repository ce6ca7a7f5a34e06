"""The bars a strategy decides on: candles as float64 series, stored indicators, and the primitives of
`carry`.

Here: what a rule can see and how its answers become signals. Not here: the rules (`strategies`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import polars as pl

from algobot_assets.compute import kernels
from algobot_assets.compute.candles import as_floats
from algobot_assets.compute.carry import Chunk, Days


class Bars(Chunk):
    """One chunk of one market for a strategy. All series are Float64 with one value per candle, in quote
    units (volume: base units); null means "no value yet" and makes a comparison false."""

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
        """Price of the first trade."""
        return self._column("open")

    @cached_property
    def high(self) -> pl.Series:
        """Highest price."""
        return self._column("high")

    @cached_property
    def low(self) -> pl.Series:
        """Lowest price."""
        return self._column("low")

    @cached_property
    def close(self) -> pl.Series:
        """Price of the last trade."""
        return self._column("close")

    @cached_property
    def volume(self) -> pl.Series:
        """Quantity traded, in the base asset."""
        return self._column("volume")

    def indicator(self, name: str) -> pl.Series:
        """A stored indicator that the strategy declares. KeyError where it does not declare it."""
        if name not in self._indicators:
            raise KeyError(f"the strategy reads indicator {name!r} without declaring it")
        return self._indicators[name]

    def rolling_sum(self, x: pl.Series, n: int) -> pl.Series:
        return self._input(super().rolling_sum(x, n))

    def scan(
        self,
        call: str,
        kernel: Callable[..., None],
        initial: Sequence[float],
        inputs: Sequence[pl.Series],
        *parameters: float,
    ) -> pl.Series:
        return self._input(super().scan(call, kernel, initial, inputs, *parameters))

    def decide(self, *rules: tuple[int, pl.Series]) -> pl.Series:
        """Signals (Int32: 1, -1, 0) from rules (BUY, SELL or HOLD, condition); the first that matches
        decides.

        No rule, no signal: 0. Also 0 at each candle where an input is null, be it a declared indicator or an
        average or sum computed by the bars: no signal until every input is warm. A null condition is false.
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
