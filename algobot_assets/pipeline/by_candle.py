"""What indicators and signals have in common: one row per candle, linked to it, and its day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.pipeline.incremental import Recorded
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import day_of
from algobot_assets.schema.windows import Window

PRICES = ("id", "timestamp", "open", "high", "low", "close", "volume")


def days_of_candles(window: Window, candles: pl.DataFrame, days: Sequence[date]) -> Days:
    """The candles' days, as the computations want them."""
    return Days(days, candles.select(day_of(window.interval, window.phase).alias("day"))["day"])


def inputs_of_day(recorded: Sequence[Recorded], day: date) -> tuple[bytes, datetime]:
    """Input digest of a day and how far it is complete: the upstream days' outputs side by side."""
    items = [by_day[day] for by_day in recorded]
    return b"".join(item.output for item in items), min(item.complete_through for item in items)


def with_candle_ids(frame: pl.DataFrame, prices: pl.DataFrame, window: Window, table: str) -> pl.DataFrame:
    """Rows of a computation with their market and the id of their candle, in the table's columns."""
    return frame.with_columns(
        prices["id"].alias("market_data_id"),
        pl.lit(window.symbol).alias("symbol"),
        pl.lit(window.interval).alias("interval"),
        *([pl.lit(window.strategy_id, dtype=pl.Int64).alias("strategy_id")] if window.strategy_id else []),
    ).select(list(schema_of(table)))
