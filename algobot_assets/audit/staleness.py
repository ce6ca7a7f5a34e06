"""Turn stale partitions into one range run that refreshes them.

The view stale_partitions lists them. A range run computes only what is needed: it skips days whose recorded inputs have
not changed, without reading rows, and indicators and signals stop once the carried state is bit-equal again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg

from algobot_assets.errors import WindowError
from algobot_assets.store.connection import Store
from algobot_assets.store.reader import query

#: The tables computed from each table, itself included, in the order of NINE.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "market_data": (
        "market_data",
        "indicators",
        "signals",
        "trade_history",
        "performance_metrics",
        "backtest_results",
    ),
    "indicators": ("indicators", "signals", "trade_history", "performance_metrics", "backtest_results"),
    "signals": ("signals", "trade_history", "performance_metrics", "backtest_results"),
    "trade_history": ("trade_history", "performance_metrics", "backtest_results"),
    "performance_metrics": ("performance_metrics",),
    "backtest_results": ("backtest_results",),
}


@dataclass(frozen=True)
class RangeRun:
    """A run to start: the tables, the days first to last (both included), and why."""

    tables: tuple[str, ...]
    first: date
    last: date
    reason: str


def _one_row(cursor: psycopg.Cursor) -> tuple[Any, ...]:
    """Return the single row of an aggregate."""
    (row,) = cursor.fetchall()
    return row


def stale(store: Store) -> pl.DataFrame:
    """Return the stale partitions: table_name, symbol, interval, strategy_id, day, reason; oldest first."""
    return query(store, """SELECT * FROM stale_partitions ORDER BY day, table_name, symbol, "interval", strategy_id""")


def stale_counts(store: Store) -> pl.DataFrame:
    """Count the stale partitions by table and reason: table, reason, partitions, from, to."""
    return query(
        store,
        """SELECT table_name AS "table", reason, count(*) AS partitions, min(day)::text AS "from",
                  max(day)::text AS "to"
             FROM stale_partitions GROUP BY 1, 2 ORDER BY 1, 2""",
    )


def due(store: Store) -> RangeRun | None:
    """Return the run that refreshes everything computed from stored candles; None if nothing is stale.

    It covers the first stale day to the last recorded one, because each day's state affects all later days. Fresh days
    in between cost nothing.
    """
    with store.transaction() as connection:
        rows = connection.execute(
            "SELECT table_name, min(day), count(*) FROM stale_partitions GROUP BY 1 ORDER BY 1"
        ).fetchall()
        if not rows:
            return None
        (last,) = _one_row(connection.execute("SELECT max(day) FROM lineage WHERE table_name = 'market_data'"))
    wanted = {table for stale_table, _, _ in rows for table in FOLLOWS[stale_table]}
    tables = tuple(table for table in FOLLOWS["market_data"] if table in wanted)
    first = min(day for _, day, _ in rows)
    return RangeRun(tables, first, max(first, last), "; ".join(f"{n} stale in {table}" for table, _, n in rows))


def recorded_days(store: Store) -> dict[tuple[str, str], tuple[date, date]]:
    """Return the first and last recorded day of candles by (symbol, interval)."""
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT symbol, "interval", min(day), max(day) FROM lineage
                WHERE table_name = 'market_data' GROUP BY 1, 2"""
        ).fetchall()
    return {(symbol, interval): (first, last) for symbol, interval, first, last in rows}


def complete_through(store: Store) -> datetime | None:
    """Return the time through which the most current market has complete candles; None if nothing is recorded."""
    with store.transaction() as connection:
        through: datetime | None
        (through,) = _one_row(
            connection.execute("SELECT max(complete_through) FROM lineage WHERE table_name = 'market_data'")
        )
    return through


def require_stored(store: Store, first: date, last: date) -> None:
    """Raise WindowError if no candles are recorded from first to last."""
    with store.transaction() as connection:
        row = connection.execute(
            """SELECT min(day), max(day), bool_or(day BETWEEN %s AND %s)
                 FROM lineage WHERE table_name = 'market_data'""",
            (first, last),
        ).fetchone()
    begin, end, some = row or (None, None, False)
    if not some:
        stored = f"stored are {begin} to {end}" if begin else "nothing is stored"
        raise WindowError(f"No candles are stored from {first} to {last}; {stored}. Run `algobot backfill` first.")


def unsettled(store: Store, markets: Collection[tuple[str, str]], settled_after: timedelta) -> tuple[date, date] | None:
    """Return the first and last complete day with candles requested less than ``settled_after`` after the day's end.

    ``markets``: the (symbol, interval) that are still fetched. Only candles requested from an exchange count, because
    files are final. None if there is no such day.
    """
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT min(l.day), max(l.day)
                 FROM sources AS s JOIN lineage AS l
                   ON (l.table_name, l.symbol, l."interval", l.strategy_id, l.day)
                    = ('market_data', s.symbol, s."interval", 0, s.day)
                WHERE s.kind = 'rest' AND l.complete_through >= (l.day + 1)::timestamp AT TIME ZONE 'UTC'
                  AND s.requested_at < (s.day + 1)::timestamp AT TIME ZONE 'UTC' + %s
                  AND s.symbol || ' ' || s."interval" = ANY(%s)""",
            (settled_after, [" ".join(market) for market in markets]),
        )
        first, last = _one_row(rows)
    return None if first is None else (first, last)


def edited_days(store: Store) -> list[date]:
    """Return the days whose stored candles differ from their source because they were changed by hand."""
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT DISTINCT l.day FROM lineage AS l
                 LEFT JOIN dirty_days AS d USING (table_name, symbol, "interval", strategy_id, day)
                WHERE l.table_name = 'market_data' AND (d.day IS NOT NULL OR l.input_digest <> l.output_digest)
                ORDER BY 1"""
        ).fetchall()
    return [row[0] for row in rows]
