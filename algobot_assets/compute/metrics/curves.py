"""Curves over days from stored results: equity, drawdown, months, rolling Sharpe ratio, buy and hold.

Here: plain functions on frames. Not here: where the frames come from, and how a curve is drawn.

The equity curve has one definition: the equity of day D is `backtest_results.final_capital` of D, the mark at the last
close at or before the end of D; before the first day it is `initial_capital`. Everything here follows from it, under
the conventions of metrics.py: a return per calendar day, the first on the starting capital, 365 days a year, ddof 1.
"""

from __future__ import annotations

import math

import polars as pl

from algobot_assets.compute.metrics.performance import YEAR_DAYS
from algobot_assets.schema.intervals import day_of

ROLLING_DAYS = 90
"""Window of the rolling Sharpe ratio, calendar days."""


def equity_curve(results: pl.DataFrame) -> pl.DataFrame:
    """One row per day of `results` (day, initial_capital, final_capital; of one version, ascending).

    day Date; equity Float64, quote asset; daily_return and drawdown Float64, fractions, the drawdown from the highest
    day so far with the starting capital as first. Drawdowns of days are at most those of candles, which max_drawdown is
    taken from.
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
    """sharpe_ratio of metrics.py over the last `days` returns; null before there are so many, and where they do not
    vary."""
    deviation = daily_return.rolling_std(days, ddof=1)
    ratio = daily_return.rolling_mean(days) / deviation * math.sqrt(YEAR_DAYS)
    # where nothing was traded the rolling deviation is a rounding error, not a risk
    return pl.select(pl.when(deviation > 1e-12).then(ratio)).to_series().alias("rolling_sharpe")


def monthly_returns(curve: pl.DataFrame) -> pl.DataFrame:
    """year Int32, month Int8, monthly_return Float64 (a fraction): from the equity before the month's first day in the
    curve to that of its last; the first and last month may be parts."""
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
    """What `initial` would be worth at the end of each of `days`, had all of it bought at the first candle's open.

    `candles`: timestamp, open, close from the strategy's start on, ascending. No costs, no lot sizes. A day without a
    candle keeps the close before it; null before the first candle.
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
