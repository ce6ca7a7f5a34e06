"""Find days of candles that are missing or incomplete, or that lack candles without a recorded gap.

The answer comes from lineage, the calendar and the recorded gaps. Rows are counted only for days changed by hand.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl
import psycopg

from algobot_assets.pipeline.steps.incremental import unknown_stretches
from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import (
    LENGTH_MS,
    consecutive,
    day_of,
    days_between,
    expected_opens,
    opens_window,
    phase_of,
)
from algobot_assets.store.connection import Store

_DAY = timedelta(days=1)


@dataclass(frozen=True, order=True)
class MissingDay:
    """One faulty day of one market, and the fault."""

    day: date
    symbol: str
    interval: str
    why: str

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval} {self.day}: {self.why}"


def missing_days(store: Store, markets: Collection[tuple[str, str]]) -> list[MissingDay]:
    """Find the missing days of these (symbol, interval) markets, oldest first.

    A day is missing if it is not recorded although days before and after are, if it is recorded as incomplete although
    a later day is recorded, or if it has fewer candles than the calendar without the recorded gaps.
    """

    def work(connection: psycopg.Connection) -> list[MissingDay]:
        found: list[MissingDay] = []
        for symbol, interval in sorted(markets):
            found += _of_market(connection, symbol, interval)
        return sorted(found)

    return store.retrying(work, "Looking for missing candles")


def every_gap(store: Store) -> pl.DataFrame:
    """Return the stretches without candles: symbol, interval, from, to, end, reason, evidence.

    `from` and `to` are opens, both included. The reason is that of the table `gaps`, or `unknown` if no file or
    response of the source covers the stretch.
    """

    def work(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
        rows = connection.execute(
            """SELECT symbol, "interval", first_open, end_open, reason, evidence FROM gaps WHERE reason <> 'listing'"""
        ).fetchall()
        markets = connection.execute(
            """SELECT symbol, "interval", min(first_open) FROM lineage LEFT JOIN listings USING (symbol, "interval")
                WHERE table_name = 'market_data' GROUP BY 1, 2"""
        ).fetchall()
        for symbol, interval, listed in markets:
            complete = _complete_days(connection, symbol, interval)
            phase = (phase_of(listed) if listed else 0) if interval == "3d" else None
            for first, last in unknown_stretches(complete):
                span = opens_window(interval, first, last + _DAY, phase)
                rows.append((symbol, interval, *span, "unknown", "no file or answer of the source covers it"))
        return rows

    rows = store.retrying(work, "Reading the gaps")
    text, time = pl.String(), UTC
    names = {"symbol": text, "interval": text, "first": time, "end": time, "reason": text, "evidence": text}
    frame = pl.DataFrame(rows, schema=names, orient="row")
    minutes = "%Y-%m-%d %H:%M"
    return frame.sort("symbol", "interval", "first").select(
        "symbol",
        "interval",
        pl.col("first").dt.strftime(minutes).alias("from"),
        pl.col("end").dt.offset_by("-1us").dt.strftime(minutes).alias("to"),
        "end",
        "reason",
        "evidence",
    )


def _complete_days(connection: psycopg.Connection, symbol: str, interval: str) -> dict[date, bool]:
    """Return whether each day from the first to the last recorded one is complete."""
    recorded: dict[date, bool] = dict(
        connection.execute(
            """SELECT day, complete_through >= (day + 1)::timestamp AT TIME ZONE 'UTC' FROM lineage
                WHERE table_name = 'market_data' AND symbol = %s AND "interval" = %s""",
            (symbol, interval),
        ).fetchall()
    )
    return {day: recorded.get(day, False) for day in days_between(min(recorded), max(recorded) + _DAY)}


def stretch(found: list[MissingDay]) -> tuple[date, date]:
    """Return the first and last day of the oldest run of consecutive days among the missing days."""
    days = sorted({missing.day for missing in found})
    last = days[0]
    for day in days[1:]:
        if day > last + _DAY:
            break
        last = day
    return days[0], last


def _of_market(connection: psycopg.Connection, symbol: str, interval: str) -> list[MissingDay]:
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
    found = [MissingDay(day, *market, "not recorded") for day in absent]
    found += [MissingDay(day, *market, "not complete") for day in open_days]
    closed = recorded.filter(~pl.col("unfinished"))
    length = LENGTH_MS[interval]
    if length is not None and length <= 86_400_000:
        closed = closed.filter((pl.col("rows") < 86_400_000 // length) | pl.col("edited"))
    if closed.height:
        found += _unconfirmed(connection, symbol, interval, closed)
    return found


def _unconfirmed(connection: psycopg.Connection, symbol: str, interval: str, days: pl.DataFrame) -> list[MissingDay]:
    """Find days with fewer candles than the calendar without the recorded gaps."""
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
    # recorded gaps never touch each other, so the last gap that starts at or before a point decides
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
            ((rows,),) = connection.execute(
                """SELECT count(*) FROM market_data
                    WHERE symbol = %s AND "interval" = %s AND "timestamp" >= %s AND "timestamp" < %s""",
                (symbol, interval, lo, hi),
            ).fetchall()
        if rows < number:
            found.append(
                MissingDay(day, symbol, interval, f"{number - rows} candles neither stored nor confirmed absent")
            )
    return found
