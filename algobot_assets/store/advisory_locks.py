"""Hold PostgreSQL's advisory locks: one per run, and one per table and month that is being written.

Dagster does not learn that a run ended with a power cut or a kill; the server does, because the connection ends. A run
holds its lock from start to end. If the lock is free, the run has died.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date

import psycopg

from algobot_assets.errors import StoreError
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database
from algobot_assets.store.session import fetch_value

#: The first number of the locks on candles that others refer to; the trigger function keep_candles knows it too.
CANDLES_CLASS = 1_633_837_924
_RUN_CLASS = zlib.crc32(b"algobot run") - 2**31
#: Seconds between two checks of the connection that holds a run's lock; the server may be restarted during a run.
_CHECK_EVERY = 15.0


# --- runs --------------------------------------------------------------------------------------------------


def _run_number(run_id: str) -> int:
    return zlib.crc32(run_id.encode()) - 2**31


@contextmanager
def hold_run_lock(database: Database, run_id: str) -> Iterator[None]:
    """Hold the run's lock during the block, on a connection of its own that is reopened when it breaks."""
    ended = threading.Event()
    connection: psycopg.Connection | None = _take_run_lock(database, run_id)

    def keep() -> None:
        nonlocal connection
        while not ended.wait(_CHECK_EVERY):
            try:
                if connection is None:
                    connection = _take_run_lock(database, run_id)
                else:
                    connection.execute("SELECT 1")
            except (psycopg.Error, StoreError):
                if connection is not None:
                    connection.close()
                connection = None

    thread = threading.Thread(target=keep, name="run lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if connection is not None:
            with suppress(psycopg.Error):  # closing releases it too, a moment later
                connection.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", (_RUN_CLASS, _run_number(run_id)))
            connection.close()


def _take_run_lock(database: Database, run_id: str) -> psycopg.Connection:
    connection = database.connect(autocommit=True)
    connection.execute("SELECT set_config('application_name', %s, false)", (f"algobot {run_id}",))
    # without waiting: a second process with this id would be the same run
    connection.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", (_RUN_CLASS, _run_number(run_id)))
    return connection


def is_running(store: Store, run_id: str) -> bool:
    """Return whether a process holds the run's lock."""
    with store.transaction() as connection:
        free = fetch_value(
            connection.execute("SELECT pg_try_advisory_xact_lock(%s::int, %s::int)", (_RUN_CLASS, _run_number(run_id))),
            bool,
        )
    return not free


# --- months of a table -------------------------------------------------------------------------------------


def lock_months(connection: psycopg.Connection, table: str, months: Sequence[date]) -> None:
    """Take one lock per table and month until the transaction ends, ascending, so that two writers cannot deadlock."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s::int, month) FROM unnest(%s::int[]) AS month",
        (_table_class(table), [_month_number(month) for month in months]),
    )


def keep_candles(connection: psycopg.Connection, months: Sequence[date]) -> None:
    """Keep candles of ``months`` from being deleted or moved until the transaction ends; others may do the same.

    A trigger on market_data takes the lock for itself alone before it lets such a change happen.
    """
    connection.execute(
        "SELECT pg_advisory_xact_lock_shared(%s::int, month) FROM unnest(%s::int[]) AS month",
        (CANDLES_CLASS, [_month_number(month) for month in months]),
    )


def keep_strategies(connection: psycopg.Connection, strategies: Sequence[int]) -> None:
    """Keep strategies from being deleted until the transaction ends."""
    connection.execute("SELECT FROM strategies WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE", (list(strategies),))


def _table_class(table: str) -> int:
    """Return the first number of the advisory locks on a table's months; the second is the month as 202401."""
    return zlib.crc32(table.encode()) - 2**31


def _month_number(month: date) -> int:
    return month.year * 100 + month.month


#: Sessions that a writer may be waiting for, the likeliest first: another writer of the months, a session that has
#: locked the table or one of its partitions, a session with uncommitted changes.
_HOLDERS = """
WITH mine AS (
    SELECT %(table)s::regclass::oid AS relation
    UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass
)
SELECT min(CASE WHEN l.locktype = 'advisory' THEN 1 WHEN l.mode <> 'RowExclusiveLock' THEN 2 ELSE 3 END) AS kind,
       a.application_name, a.usename::text, a.pid
  FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
 WHERE l.granted AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = %(class)s::bigint::oid
            AND l.objid = ANY(%(months)s::oid[])
        OR l.locktype = 'relation' AND l.relation IN (SELECT relation FROM mine)
            AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock'))
 GROUP BY 2, 3, 4 ORDER BY 1, 2, 4
"""


def describe_holder(store: Store, table: str, months: Sequence[date]) -> str:
    """Return a sentence that names the sessions that keep ``months`` of ``table`` from being written."""
    with store.transaction() as connection:
        rows = connection.execute(
            _HOLDERS,
            {
                "table": table,
                "class": _table_class(table) % 2**32,
                "months": [_month_number(month) for month in months],
            },
        ).fetchall()
    if not rows:
        return "the lock it waited for has just been released."
    likeliest = [row[1:] for row in rows if row[0] == rows[0][0]]
    names = [f"{name or 'a connection'} of {user} (process {pid})" for name, user, pid in likeliest]
    sentence: str = {
        1: "its months are being written by {}, until that run ends.",
        2: f"{table} or a partition of it is locked by {{}}, until that transaction ends.",
        3: f"rows of {table} are being changed by {{}}, until that transaction ends.",
    }[rows[0][0]]
    return sentence.format(" and ".join(names))
