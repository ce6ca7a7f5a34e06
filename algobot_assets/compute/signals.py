"""Run a strategy over one market's candles and check the signals it returns."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.compute.strategy import BUY, SELL, Strategy
from algobot_assets.compute.strategy.bars import Bars
from algobot_assets.compute.units import bounds
from algobot_assets.errors import SettingsError, WindowError


def compute_signals(
    strategy_type: str,
    candles: pl.DataFrame,
    indicators: pl.DataFrame | None,
    parameters: Mapping[str, Any] | None,
    days: Days,
    state: np.ndarray | None = None,
) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the signals of one strategy on one market's candles, and its state at the end of each day.

    candles      ascending by timestamp: open, high, low, close, volume (Decimal or Float64)
    indicators   the same timestamps with at least the columns that the strategy declares; None if it declares none
    parameters   those that differ from the defaults
    state        the state at the end of the day before; None at the market's first candle

    The frame has one row per candle: timestamp and signal (Int32: 1 buy, -1 sell, 0 hold). The states have the shape
    (days, numbers), see `Chunk.states`. Any chunking gives the same bits of both.

    SettingsError for an unknown strategy or parameter, and if the strategy returns anything but signals. WindowError if
    indicators are missing, or if the state was written by other code or with other parameters.
    """
    strategy = get_strategy(strategy_type)
    resolved = strategy.resolve(parameters)
    if not candles["timestamp"].is_sorted():
        raise ValueError("candles must ascend by timestamp")
    bars = Bars(candles, declared_indicators(strategy, candles, indicators, days), days, state)
    signal = decide(strategy, bars, resolved)
    return pl.DataFrame({"timestamp": candles["timestamp"], "signal": signal}), bars.states()


def decide(strategy: Strategy, bars: Bars, resolved: Mapping[str, Any]) -> pl.Series:
    """Return the strategy's signals on `bars`: Int32, one per candle. SettingsError if it returns anything else."""
    signal = strategy(bars, SimpleNamespace(**resolved))
    _check(strategy, signal, bars.days.candles)
    return signal


def declared_indicators(
    strategy: Strategy, candles: pl.DataFrame, indicators: pl.DataFrame | None, days: Days
) -> pl.DataFrame:
    """Return the indicators that a strategy declares, one row per candle. WindowError if they are of other candles."""
    if not strategy.indicators:
        return pl.DataFrame()
    if indicators is None or not indicators["timestamp"].equals(candles["timestamp"]):
        rows = 0 if indicators is None else indicators.height
        raise WindowError(
            f"Strategy {strategy.name} reads {', '.join(strategy.indicators)} of {candles.height} candles from"
            f" {days.days[0]} to {days.days[-1]}, but {rows} rows of indicators were given, or those of other candles."
            " Materialise the indicators of these days first."
        )
    return indicators.select("timestamp", *strategy.indicators)


def _check(strategy: Strategy, signal: Any, height: int) -> None:
    if not isinstance(signal, pl.Series) or signal.dtype != pl.Int32 or len(signal) != height:
        found = f"{len(signal)} of {signal.dtype}" if isinstance(signal, pl.Series) else type(signal).__name__
        raise SettingsError(
            f"Strategy {strategy.name} must return one Int32 per candle ({height}), as bars.decide gives;"
            f" it returned {found}."
        )
    least, greatest = bounds(signal)
    if signal.null_count() or least < SELL or greatest > BUY:
        raise SettingsError(f"Strategy {strategy.name} returned signals other than 1, -1 and 0.")
