"""Resample candles for a chart, so that a page with a year of minutes stays small and smooth.

A page holds a market's candles in several resolutions and draws the finest that fits the view.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from algobot_assets.schema.intervals import LENGTH_MS

#: Most candles of a level that covers the whole period.
MOST = 30_000
#: Newest candles of a finer level.
NEWEST = 6_000
#: Intervals of levels, coarsest first.
_STEPS = ("1w", "1d", "4h", "1h", "15m", "5m", "1m")
_WEEK_MS = 7 * 86_400_000
_INDICATORS = ("ema", "vwap", "rsi", "atr")


def levels(candles: pl.DataFrame, interval: str) -> list[dict[str, Any]]:
    """Return the levels, coarsest first.

    Each has its `interval`, whether it is `exact` (the stored candles) and `whole` (all of the period), and columns
    t (open, ms since 1970), o, h, l, c, ema, vwap, rsi, atr.

    `candles`: timestamp, open, high, low, close and the indicators, ascending. A coarser candle opens with the first
    and closes with the last of its candles; its indicators are those of the last.
    """
    own = LENGTH_MS[interval] or 30 * 86_400_000
    found = []
    for step in _STEPS:
        length = LENGTH_MS[step] or _WEEK_MS
        if length <= own or candles.is_empty():
            continue
        span = (candles["timestamp"][-1] - candles["timestamp"][0]).total_seconds() * 1000
        if span / length < 40:
            continue
        coarse = _coarser(candles, step)
        whole = coarse.height <= MOST
        found.append(_level(coarse if whole else coarse.tail(NEWEST), step, exact=False, whole=whole))
    if candles.height <= MOST:
        return [*found, _level(candles, interval, exact=True, whole=True)]
    return [*found, _level(candles.tail(NEWEST), interval, exact=True, whole=False)]


def _coarser(candles: pl.DataFrame, step: str) -> pl.DataFrame:
    return candles.group_by(pl.col("timestamp").dt.truncate(step), maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        *(pl.col(name).last() for name in _INDICATORS),
    )


def _level(frame: pl.DataFrame, interval: str, *, exact: bool, whole: bool) -> dict[str, Any]:
    prices = frame.select(pl.col(name).cast(pl.Float64) for name in ("open", "high", "low", "close"))
    values = frame.select(pl.col(name).round_sig_figs(7).fill_nan(None) for name in _INDICATORS)
    return {
        "interval": interval,
        "exact": exact,
        "whole": whole,
        "t": frame["timestamp"].dt.epoch("ms").to_list(),
        **{name[0]: prices[name].to_list() for name in prices.columns},
        **{name: values[name].to_list() for name in _INDICATORS},
    }
