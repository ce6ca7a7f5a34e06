"""List, create and vacuum the monthly partitions ("leaves") of the large tables.

The database's function ensure_month creates them; retention/months.py drops them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psycopg
from psycopg import sql

from algobot_assets.schema.intervals import next_month
from algobot_assets.schema.windows import WINDOWING
from algobot_assets.store.connection import Store

#: Leaves vacuumed at the same time.
_VACUUMED_TOGETHER = 2
#: Months whose leaves are made before their first candle.
MONTHS_AHEAD = 3


def coming_months(day: date) -> list[date]:
    """Return the first days of the month of ``day`` and of the months made ahead of it."""
    months = [day.replace(day=1)]
    while len(months) <= MONTHS_AHEAD:
        months.append(next_month(months[-1]))
    return months


def leaf(table: str, month: date) -> str:
    """Return the name of the table's leaf of ``month``, for example market_data_2024_01."""
    return f"{table}_{month:%Y_%m}"


def months_present(connection: psycopg.Connection) -> list[date]:
    """Return the first days of the months that have leaves, ascending."""
    rows = connection.execute(
        """SELECT to_date(right(c.relname, 7), 'YYYY_MM')
             FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'market_data'::regclass AND NOT i.inhdetachpending ORDER BY 1"""
    )
    return [row[0] for row in rows]


def ensure_months(store: Store, months: Iterable[date]) -> list[date]:
    """Create the missing leaves of ``months`` and return the months concerned. Archived months are skipped."""
    wanted = sorted({month.replace(day=1) for month in months})

    def work(connection: psycopg.Connection) -> list[date]:
        if not _missing(connection, wanted):
            return []
        for month in wanted:
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('algobot.ensure_month'), %s)", (month.year * 100 + month.month,)
            )
        # query again: this session's cache of names lacks leaves that another session has made meanwhile
        missing = _missing(connection, wanted)
        for month in missing:
            connection.execute("SELECT ensure_month(%s)", (month,))
        return missing

    return store.retrying(work, "Making partitions ahead")


def _missing(connection: psycopg.Connection, months: Sequence[date]) -> list[date]:
    rows = connection.execute(
        """SELECT month FROM unnest(%s::date[]) AS wanted (month)
            WHERE NOT EXISTS (SELECT FROM pg_class WHERE relname = 'signals_' || to_char(month, 'YYYY_MM')
                                 AND relnamespace = 'public'::regnamespace)
              AND NOT EXISTS (SELECT FROM archived_files AS a WHERE a.month = wanted.month)
            ORDER BY month""",
        (list(months),),
    )
    return [row[0] for row in rows]


def vacuum_months(store: Store, table: str, months: Iterable[date]) -> None:
    """VACUUM (ANALYZE) leaves after a bulk load.

    Without it the planner expects one row, and index-only scans visit the heap. Without permission the server only
    warns. Only key columns are analysed; sorting the prices is most of the cost, and autovacuum does it later.
    """
    rule = WINDOWING[table]
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in ("id", *rule.links, *rule.natural_key))

    def vacuum(month: date) -> None:
        name = sql.Identifier(leaf(table, month))
        with store.connection() as connection, store.as_login(connection):
            connection.execute(sql.SQL("VACUUM (ANALYZE) {} ({})").format(name, columns))

    with ThreadPoolExecutor(_VACUUMED_TOGETHER) as pool:
        list(pool.map(vacuum, months))
