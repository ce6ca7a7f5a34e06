"""Rules for stored candles: consistent prices, one candle per grid point, recorded gaps.

Pure functions on frames of one market. The conditions on a candle's numbers are written once, as SQL that both the
server and Polars evaluate, so that valid candles need not be read.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from algobot_assets.audit.rules.messages import at
from algobot_assets.schema.intervals import candle_end, day_of, end_of, expected_opens, floor_open, opens_window
from algobot_assets.schema.windows import Window

#: Conditions that every candle meets, by the message if it does not.
CONSISTENT = {
    "its high is below its open, close or low": '"high" >= "open" AND "high" >= "close" AND "high" >= "low"',
    "its low is above its open or close": '"low" <= "open" AND "low" <= "close"',
    "a price is not above 0": '"open" > 0 AND "high" > 0 AND "low" > 0 AND "close" > 0',
    "a volume is negative": '"volume" >= 0 AND "quote_asset_volume" >= 0 AND "taker_buy_base" >= 0 '
    'AND "taker_buy_quote" >= 0 AND "trades" >= 0',
    "takers bought more than was traded": '"taker_buy_base" <= "volume" AND "taker_buy_quote" <= "quote_asset_volume"',
}
#: The columns that these conditions read.
NUMBERS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_asset_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
)


def inconsistent(window: Window, candles: pl.DataFrame) -> list[str]:
    """Return a message for each candle (timestamp and NUMBERS) whose numbers contradict each other."""
    return [
        f"{window.symbol} {window.interval}: the candle of {at(opened)} cannot be, {what}. Materialise "
        f"market_data of {day} with `from_source`."
        for what, condition in CONSISTENT.items()
        for opened, day in candles.filter(~pl.sql_expr(condition))
        .select("timestamp", day_of(window.interval, window.phase).alias("day"))
        .iter_rows()
    ]


def expected(window: Window, days: pl.DataFrame) -> pl.DataFrame:
    """Return timestamp and day of the candles that a market without gaps has on the recorded days.

    ``days``: day and complete_through, the time up to which the day's candles are expected.
    """
    lo, hi = opens_window(window.interval, window.first, window.end, window.phase)
    grid = expected_opens(window.interval, lo, hi, window.phase).to_frame("timestamp")
    grid = grid.with_columns(
        day_of(window.interval, window.phase).alias("day"), end_of(window.interval, window.phase).alias("end")
    )
    known = grid.join(days.select("day", "complete_through"), on="day", how="inner", maintain_order="left")
    return known.filter(pl.col("end") <= pl.col("complete_through")).select("timestamp", "day")


def crowded(window: Window, opens: pl.DataFrame) -> list[str]:
    """Return a message for each grid point with more than one candle (timestamp)."""
    slots = opens.group_by(floor_open(window.interval, window.phase).alias("slot")).len().filter(pl.col("len") > 1)
    return [
        f"{window.symbol} {window.interval}: {number} candles lie between {at(slot)} and {at(_end(window, slot))}, "
        "where one belongs. Materialise market_data of that day with `from_source`."
        for slot, number in slots.sort("slot").iter_rows()
    ]


def unclosed(window: Window, opens: pl.DataFrame, days: pl.DataFrame) -> list[str]:
    """Return a message for each candle (timestamp) that ends after complete_through of its recorded day."""
    candles = opens.select(
        "timestamp",
        day_of(window.interval, window.phase).alias("day"),
        end_of(window.interval, window.phase).alias("end"),
    ).join(days, on="day", how="inner", maintain_order="left")
    return [
        f"{window.symbol} {window.interval}: the candle of {at(opened)} is stored, but it had not closed: its day is "
        f"known up to {at(through)} only. Materialise market_data of {day} with `from_source`."
        for opened, day, through in candles.filter(pl.col("end") > pl.col("complete_through"))
        .select("timestamp", "day", "complete_through")
        .iter_rows()
    ]


def unrecorded(window: Window, wanted: pl.DataFrame, opens: pl.DataFrame, gaps: pl.DataFrame) -> list[str]:
    """Return a message for each run of ``wanted`` grid points (timestamp) without candles and without a recorded gap.

    ``opens``: the stored candles (timestamp). ``gaps``: recorded ranges of opens (first_open, end_open).
    """
    present = opens.select(floor_open(window.interval, window.phase).alias("timestamp")).unique()
    absent = wanted.select("timestamp").join(present, on="timestamp", how="anti").sort("timestamp")
    covered = absent.join_asof(
        gaps.select("first_open", "end_open").sort("first_open"), left_on="timestamp", right_on="first_open"
    )
    left = covered.filter(pl.col("end_open").is_null() | (pl.col("end_open") <= pl.col("timestamp")))["timestamp"]
    sentences = []
    for first, last, number in _runs(window, left):
        where = f"at {at(first)}" if first == last else f"from {at(first)} to {at(last)}"
        sentences.append(
            f"{window.symbol} {window.interval}: {number} candle{'s are' if number > 1 else ' is'} absent {where}, but "
            "no gap is recorded there. Materialise market_data of these days with `from_source`."
        )
    return sentences


def miscounted(table: str, who: str, stored: pl.DataFrame, days: pl.DataFrame) -> list[str]:
    """Return a message for each day with a different number of stored rows (day, rows) than recorded (day, rows)."""
    both = days.select("day", recorded="rows").join(stored.select("day", "rows"), on="day", how="full", coalesce=True)
    both = both.with_columns(pl.col("rows").fill_null(0)).filter(pl.col("rows").ne_missing(pl.col("recorded")))
    return [
        f"{table} of {who}: {rows} rows of {day} are stored, {'none' if recorded is None else recorded} "
        "recorded: they were changed by hand. Materialise the day again."
        for day, recorded, rows in both.sort("day").iter_rows()
    ]


def _end(window: Window, slot: datetime) -> datetime:
    return candle_end(window.interval, slot)


def _runs(window: Window, points: pl.Series) -> list[tuple[datetime, datetime, int]]:
    """Group consecutive grid points into runs: first, last, number."""
    runs: list[tuple[datetime, datetime, int]] = []
    for point in points:
        if runs and _end(window, runs[-1][1]) == point:
            runs[-1] = (runs[-1][0], point, runs[-1][2] + 1)
        else:
            runs.append((point, point, 1))
    return runs
