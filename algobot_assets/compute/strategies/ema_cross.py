"""Follow trends with two exponential averages of the close."""

from __future__ import annotations

from types import SimpleNamespace

import polars as pl

from algobot_assets.compute.strategy import BUY, SELL, Bars, strategy, window


@strategy("ema_cross", parameters={"fast": window(9), "slow": window(21)})
def ema_cross(bars: Bars, p: SimpleNamespace) -> pl.Series:
    """Buy when the fast EMA of the close crosses above the slow one, sell when it crosses below."""
    fast, slow = bars.ema(bars.close, p.fast), bars.ema(bars.close, p.slow)
    return bars.decide((BUY, bars.crosses_above(fast, slow)), (SELL, bars.crosses_below(fast, slow)))
