"""Compute tables with one row per candle: helpers that indicators and signals share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.pipeline.steps.incremental import Recorded
from algobot_assets.schema.intervals import day_of
from algobot_assets.schema.windows import Window, frame_schema

PRICES = ("timestamp", "open", "high", "low", "close", "volume")


def days_of_candles(window: Window, candles: pl.DataFrame, days: Sequence[date]) -> Days:
    """Return ``days`` and the day of each candle, in the form that the computations expect."""
    return Days(days, candles.select(day_of(window.interval, window.phase).alias("day"))["day"])


def inputs_of_day(recorded: Sequence[Recorded], day: date) -> tuple[bytes, datetime]:
    """Return a day's input digest, the upstream outputs concatenated, and the time up to which all are complete."""
    items = [by_day[day] for by_day in recorded]
    return b"".join(item.output for item in items), min(item.complete_through for item in items)


def rows_of_market(frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Add the window's market and strategy to computed rows, and return the table's columns."""
    return frame.with_columns(
        pl.lit(window.symbol).alias("symbol"),
        pl.lit(window.interval).alias("interval"),
        *([pl.lit(window.strategy_id, dtype=pl.Int64).alias("strategy_id")] if window.strategy_id else []),
    ).select(list(frame_schema(window.table)))
