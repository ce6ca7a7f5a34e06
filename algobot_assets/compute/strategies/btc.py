"""A composite rule on all four stored indicators."""

from __future__ import annotations

from types import SimpleNamespace

import polars as pl

from algobot_assets.compute.strategy import BUY, SELL, Bars, Parameter, strategy


@strategy(
    "btc",
    parameters={
        "rsi_middle": Parameter(50.0, 0, 100),
        "rsi_low": Parameter(30.0, 0, 100),
        "atr_rise": Parameter(1.5, 0, 100),
        "atr_fall": Parameter(0.95, 0, 100),
    },
    indicators=("ema", "rsi", "atr", "vwap"),
)
def btc(bars: Bars, p: SimpleNamespace) -> pl.Series:
    """Trade VWAP crossings that the RSI confirms, then jumps of the ATR above the EMA and lulls below it.

    `atr_rise` and `atr_fall` are factors of the previous candle's ATR. In one candle Wilder's ATR over n falls to no
    less than (n - 1)/n, so with the default window of 14 an `atr_fall` below 0.929 has no effect.
    """
    close, ema = bars.close, bars.indicator("ema")
    rsi, atr, vwap = bars.indicator("rsi"), bars.indicator("atr"), bars.indicator("vwap")
    atr_before = bars.previous(atr)
    return bars.decide(
        (BUY, bars.crosses_above(close, vwap) & (rsi > p.rsi_middle)),
        (SELL, bars.crosses_below(close, vwap) & (rsi < p.rsi_middle)),
        (SELL, (close > ema) & (atr > p.atr_rise * atr_before)),
        (BUY, (close < ema) & (atr < p.atr_fall * atr_before) & (rsi > p.rsi_low)),
    )
