"""Rule for tables with one row per candle: a pure function on per-day counts."""

from __future__ import annotations

import polars as pl

from algobot_assets.schema.windows import Window


def unlike_candles(window: Window, stored: pl.DataFrame, candles: pl.DataFrame, days: pl.DataFrame) -> list[str]:
    """Return a message for each recorded day (day) whose rows do not match its candles.

    ``stored`` and ``candles``: day, rows, and links, the sum of the candles' ids. The sums are equal if each row
    belongs to its own candle, because natural keys are unique.
    """
    both = (
        days.select("day")
        .join(stored.select("day", "rows", "links"), on="day", how="left", maintain_order="left")
        .join(candles.select("day", candles="rows", ids="links"), on="day", how="left", maintain_order="left")
        .with_columns(pl.exclude("day").fill_null(0))
    )
    return [
        f"{window}: {day} has {rows} rows for {number} candles"
        + (". " if rows != number else ", and some are linked to other candles. ")
        + f"Materialise {window.table} of {day} again."
        for day, rows, links, number, ids in both.iter_rows()
        if rows != number or links != ids
    ]
