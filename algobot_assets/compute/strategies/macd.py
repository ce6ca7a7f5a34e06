"""Moving average convergence/divergence (Gerald Appel)."""

from __future__ import annotations

from types import SimpleNamespace

import polars as pl

from algobot_assets.compute.strategy import BUY, SELL, Bars, strategy, window


@strategy("macd", parameters={"fast": window(12), "slow": window(26), "signal": window(9)})
def macd(bars: Bars, p: SimpleNamespace) -> pl.Series:
    """Buy when the MACD line crosses above its signal line, sell when it crosses below.

    The line is the fast EMA minus the slow EMA of the close, each with its own seed (TA-Lib starts both late, so its
    first values differ). The signal line is an EMA of the line, seeded with the line's first values. With 12, 26, 9 the
    line starts at the 26th candle and the signal line at the 34th.
    """
    line = bars.ema(bars.close, p.fast) - bars.ema(bars.close, p.slow)
    signal = bars.ema(line, p.signal)
    return bars.decide((BUY, bars.crosses_above(line, signal)), (SELL, bars.crosses_below(line, signal)))
