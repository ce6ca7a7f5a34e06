"""Compute curves over days from stored results: equity, drawdown, months, rolling Sharpe ratio, buy and hold.

The equity of day D is `backtest_results.final_capital` of D, the mark at the last close at or before the end of D;
before the first day it is `initial_capital`. All curves derive from it, with the conventions of performance.py: a
return per calendar day, the first one on the starting capital, 365 days a year, ddof 1.
"""

from __future__ import annotations

import math

import polars as pl

from algobot_assets.compute.metrics.performance import YEAR_DAYS
from algobot_assets.schema.intervals import day_of

ROLLING_DAYS = 90
"""The window of the rolling Sharpe ratio, in calendar days."""


def equity_curve(results: pl.DataFrame) -> pl.DataFrame:
    """Return one row per day of `results` (day, initial_capital, final_capital; one version, ascending).

    day Date; equity Float64, quote asset; daily_return and drawdown Float64, fractions. The drawdown is measured from
    the highest day so far, starting with the initial capital. It is never deeper than max_drawdown, which is measured
    at candles.
    """
    equity = pl.col("final_capital").cast(pl.Float64)
    initial = pl.col("initial_capital").first().cast(pl.Float64)
    return (
        results.select("day", equity.alias("equity"), initial.alias("initial"))
        .with_columns(
            (pl.col("equity") / pl.col("equity").shift(1).fill_null(pl.col("initial")) - 1.0).alias("daily_return"),
            (pl.col("equity") / pl.max_horizontal(pl.col("equity").cum_max(), "initial") - 1.0).alias("drawdown"),
        )
        .drop("initial")
    )


def rolling_sharpe(daily_return: pl.Series, days: int = ROLLING_DAYS) -> pl.Series:
    """Return the Sharpe ratio over the last `days` returns; null until there are that many, and if they do not vary."""
    deviation = daily_return.rolling_std(days, ddof=1)
    ratio = daily_return.rolling_mean(days) / deviation * math.sqrt(YEAR_DAYS)
    # where nothing was traded the rolling deviation is a rounding error, not a risk
    return pl.select(pl.when(deviation > 1e-12).then(ratio)).to_series().alias("rolling_sharpe")


def monthly_returns(curve: pl.DataFrame) -> pl.DataFrame:
    """Return year Int32, month Int8 and monthly_return Float64, a fraction.

    A month runs from the equity before its first day in the curve to that of its last; the first and last month may be
    incomplete.
    """
    return (
        curve.group_by(
            pl.col("day").dt.year().alias("year"), pl.col("day").dt.month().alias("month"), maintain_order=True
        )
        .agg(
            (pl.col("equity").last() / (pl.col("equity").first() / (1.0 + pl.col("daily_return").first())) - 1.0).alias(
                "monthly_return"
            )
        )
        .sort("year", "month")
    )


def buy_and_hold(candles: pl.DataFrame, days: pl.Series, initial: float, interval: str, phase: int | None) -> pl.Series:
    """Return the worth of `initial` at the end of each of `days`, had all of it bought at the first candle's open.

    `candles` have timestamp, open and close from the strategy's start on, ascending. There are no costs and no lot
    sizes. A day without a candle keeps the close before it; null before the first candle.
    """
    if candles.is_empty():
        return pl.Series("hold", [None] * len(days), dtype=pl.Float64)
    closes = (
        candles.group_by(day_of(interval, phase).alias("day"), maintain_order=True)
        .agg(pl.col("close").last().cast(pl.Float64))
        .sort("day")
    )
    worth = days.to_frame("day").join_asof(closes, on="day", strategy="backward")["close"]
    return (worth / float(candles["open"][0]) * initial).alias("hold")
