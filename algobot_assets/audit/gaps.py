"""Days of candles that are not what they should be: missing or unfinished between others, or with candles that
nobody has confirmed to be absent.

Told from lineage, the calendar and the recorded gaps; rows are counted only for days that were changed by hand.
What is done about them is the affair of automation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
import psycopg

from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import LENGTH_MS, consecutive, day_of, expected_opens, opens_window, phase_of
from algobot_assets.store.connection import Store

_DAY = timedelta(days=1)


@dataclass(frozen=True, order=True)
class Hole:
    """One day of one market, and what is wrong with it."""

    day: date
    symbol: str
    interval: str
    why: str

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval} {self.day}: {self.why}"


def holes(store: Store, markets: Collection[tuple[str, str]]) -> list[Hole]:
    """The holes of these (symbol, interval) markets, oldest first.

    A day is one where it is not recorded though days before and after are, where it is recorded unfinished though a
    later one is recorded, or where it has fewer candles than its calendar less the confirmed gaps.
    """

    def work(connection: psycopg.Connection) -> list[Hole]:
        found: list[Hole] = []
        for symbol, interval in sorted(markets):
            found += _of_market(connection, symbol, interval)
        return sorted(found)

    return store.retrying(work, "Looking for holes in the candles")


def stretch(found: list[Hole]) -> tuple[date, date]:
    """First and last day of the oldest run of consecutive days among the holes."""
    days = sorted({hole.day for hole in found})
    last = days[0]
    for day in days[1:]:
        if day > last + _DAY:
            break
        last = day
    return days[0], last


def _of_market(connection: psycopg.Connection, symbol: str, interval: str) -> list[Hole]:
    market = (symbol, interval)
    rows = connection.execute(
        """SELECT l.day, l.rows, l.complete_through < (l.day + 1)::timestamp AT TIME ZONE 'UTC', d.day IS NOT NULL
             FROM lineage AS l LEFT JOIN dirty_days AS d USING (table_name, symbol, "interval", strategy_id, day)
            WHERE l.table_name = 'market_data' AND l.symbol = %s AND l."interval" = %s ORDER BY l.day""",
        market,
    ).fetchall()
    if not rows:
        return []
    schema = {"day": pl.Date, "rows": pl.Int64, "unfinished": pl.Boolean, "edited": pl.Boolean}
    recorded = pl.DataFrame(rows, schema=schema, orient="row")
    first, last = recorded["day"][0], recorded["day"][-1]
    every = pl.date_range(first, last, eager=True).alias("day").to_frame()
    absent = every.join(recorded, on="day", how="anti")["day"]
    open_days = recorded.filter(pl.col("unfinished") & (pl.col("day") < last))["day"]
    found = [Hole(day, *market, "not recorded") for day in absent]
    found += [Hole(day, *market, "not complete") for day in open_days]
    closed = recorded.filter(~pl.col("unfinished"))
    if LENGTH_MS[interval] is not None and LENGTH_MS[interval] <= 86_400_000:
        closed = closed.filter((pl.col("rows") < 86_400_000 // LENGTH_MS[interval]) | pl.col("edited"))
    if closed.height:
        found += _unconfirmed(connection, symbol, interval, closed)
    return found


def _unconfirmed(connection: psycopg.Connection, symbol: str, interval: str, days: pl.DataFrame) -> list[Hole]:
    """Days with fewer candles than the calendar and the confirmed gaps leave."""
    listed = connection.execute(
        """SELECT first_open FROM listings WHERE symbol = %s AND "interval" = %s""", (symbol, interval)
    ).fetchone()
    phase = (phase_of(listed[0]) if listed else 0) if interval == "3d" else None
    spans = [opens_window(interval, run[0], run[-1] + _DAY, phase) for run in consecutive(days["day"])]
    grid = pl.concat([expected_opens(interval, *span, phase).to_frame("timestamp") for span in spans])
    gaps = connection.execute(
        """SELECT first_open, end_open FROM gaps WHERE symbol = %s AND "interval" = %s ORDER BY first_open""",
        (symbol, interval),
    ).fetchall()
    known = pl.DataFrame(gaps, schema={"first": UTC, "end": UTC}, orient="row").sort("first")
    # a recorded gap never touches another, so the latest one that begins before a point decides
    wanted = (
        grid.sort("timestamp")
        .join_asof(known, left_on="timestamp", right_on="first", strategy="backward")
        .filter(pl.col("end").is_null() | (pl.col("timestamp") >= pl.col("end")))
        .group_by(day_of(interval, phase).alias("day"))
        .agg(pl.len().cast(pl.Int64).alias("wanted"))
    )
    compared = days.join(wanted, on="day", how="left").with_columns(pl.col("wanted").fill_null(0)).sort("day")
    found = []
    for day, rows, edited, number in compared.select("day", "rows", "edited", "wanted").iter_rows():
        if edited:
            lo, hi = opens_window(interval, day, day + _DAY, phase)
            rows = connection.execute(
                """SELECT count(*) FROM market_data
                    WHERE symbol = %s AND "interval" = %s AND "timestamp" >= %s AND "timestamp" < %s""",
                (symbol, interval, lo, hi),
            ).fetchone()[0]
        if rows < number:
            found.append(Hole(day, symbol, interval, f"{number - rows} candles neither stored nor confirmed absent"))
    return found
