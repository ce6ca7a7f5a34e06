"""Real klines for tests of computations: read from the folder that ALGOBOT_DATA names, never copied."""

from __future__ import annotations

import os
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from algobot_assets.compute.carry import Days
from algobot_assets.schema.intervals import day_of, phase_of

FOLDER = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).parents[2] / "shared" / "data"))


@cache
def klines(name: str) -> pl.DataFrame:
    """A file of `klines/`, such as "spot/BTCUSDT-1d-all_2026-04": timestamp, prices and volume, decimals."""
    path = FOLDER / "klines" / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"no real candles: {path} is absent (set ALGOBOT_DATA)")
    return pl.read_parquet(path).select(
        pl.from_epoch("open_time", "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC").alias("timestamp"),
        pl.col("open", "high", "low", "close").cast(pl.Decimal(20, 8)),
        pl.col("volume").cast(pl.Decimal(28, 8)),
    )


def interval_of(name: str) -> str:
    """The interval in a file's name, as Binance calls it."""
    interval = name.rpartition("/")[2].split("-")[1]
    return "1M" if interval == "1mo" else interval


def days_of(candles: pl.DataFrame, interval: str, first: date | None = None, last: date | None = None) -> Days:
    """The days of candles, without a break from `first` to `last` (default: of the candles themselves)."""
    phase = phase_of(candles["timestamp"][0]) if interval == "3d" else None
    owned = candles.select(day_of(interval, phase)).to_series()
    return Days(every_day(first or owned[0], last or owned[-1]), owned)


def every_day(first: date, last: date) -> list[date]:
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def same_bits(left: np.ndarray | pl.Series, right: np.ndarray | pl.Series) -> bool:
    """Bit for bit the same numbers and the same nulls."""
    if isinstance(left, pl.Series) and isinstance(right, pl.Series):
        if left.dtype != right.dtype or not left.is_null().equals(right.is_null()):
            return False
        if left.dtype != pl.Float64:
            return left.equals(right)
        left, right = left.fill_null(0.0).to_numpy(), right.fill_null(0.0).to_numpy()
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    return left.shape == right.shape and bool((left.view(np.uint64) == right.view(np.uint64)).all())
