"""Remove a strategy version's rows after its end, because a run into an empty database would not store them.

A version that is replaced or retired on a past day has signals, trades and results of later days, computed before the
change was declared.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.declared.versions import lifetimes
from algobot_assets.errors import ArchivedError
from algobot_assets.schema.intervals import midnight, month_start, opens_window, phase_of
from algobot_assets.schema.windows import Window
from algobot_assets.store.archive import archived_months, restore_command
from algobot_assets.store.connection import Store
from algobot_assets.store.reader import read_table

DAY = timedelta(days=1)
_LEDGER = ("trade_history", "performance_metrics", "backtest_results")


def remove_retired_results(store: Store) -> None:
    """Remove a version's signals from the day that ended it, and its ledger after the day that closed its lots.

    One transaction per version. ArchivedError if such signals are archived.
    """
    stored = read_table(store, "strategies", "id")
    if stored.is_empty():
        return
    for version in lifetimes(stored).filter(pl.col("until").is_not_null()).iter_rows(named=True):
        store.retrying(
            partial(_remove_results, version=version),
            f"Removing what {version['strategy_name']} left after {version['until']}",
        )


def _remove_results(connection: psycopg.Connection, version: dict[str, Any]) -> None:
    strategy, until = version["id"], version["until"]
    last_days: dict[bool, date] = dict(
        connection.execute(
            """SELECT table_name = 'signals', max(day) FROM lineage WHERE strategy_id = %s AND day >= %s GROUP BY 1""",
            (strategy, until),
        ).fetchall()
    )
    last_signals, last_results = last_days.get(True), last_days.get(False)
    closing = None if last_results is None else _closing_day(connection, version)
    if last_signals is not None:
        _remove_signals(connection, version)
    if closing is not None and last_results is not None and last_results > closing:
        for table in _LEDGER:
            connection.execute("SELECT set_config('algobot.writing', %s, true)", (table,))
            if table != "performance_metrics":  # deleted with their trades
                statement = sql.SQL("DELETE FROM {} WHERE strategy_id = %s AND day > %s").format(sql.Identifier(table))
                connection.execute(statement, (strategy, closing))
        connection.execute("DELETE FROM unfilled_signals WHERE strategy_id = %s AND day > %s", (strategy, closing))
        for records in ("lineage", "dirty_days"):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE strategy_id = %s AND table_name = ANY(%s) AND day > %s").format(
                    sql.Identifier(records)
                ),
                (strategy, list(_LEDGER), closing),
            )


def _closing_day(connection: psycopg.Connection, version: dict[str, Any]) -> date | None:
    """Return the day of the first candle that opens on or after the version's end: its lots close there."""
    # a candle longer than a day may have opened before the version's end; the next one has not
    rows = connection.execute(
        """SELECT day FROM lineage WHERE table_name = 'market_data' AND symbol = %s AND "interval" = %s AND rows > 0
              AND day >= %s ORDER BY day LIMIT 2""",
        (version["symbol"], version["interval"], version["until"]),
    ).fetchall()
    begin = midnight(version["until"])
    return next((day for (day,) in rows if _window(connection, version, day).bounds[0] >= begin), None)


def _window(connection: psycopg.Connection, version: dict[str, Any], day: date) -> Window:
    symbol, interval = version["symbol"], version["interval"]
    phase = None
    if interval == "3d":
        listed = connection.execute(
            """SELECT first_open FROM listings WHERE symbol = %s AND "interval" = %s""", (symbol, interval)
        ).fetchone()
        phase = phase_of(listed[0]) if listed else 0
    return Window("signals", day, day + DAY, symbol, interval, version["id"], phase)


def _remove_signals(connection: psycopg.Connection, version: dict[str, Any]) -> None:
    strategy, until = version["id"], version["until"]
    window = _window(connection, version, until)
    opened, _ = opens_window(window.interval, window.first, window.end, window.phase)
    archived = [month for month in archived_months(connection) if month >= month_start(opened.date())]
    if archived:
        raise ArchivedError(
            f"{version['strategy_name']} ends on {until}, but signals after that day are archived. Run "
            f"{restore_command(archived)}, then repeat the command."
        )
    connection.execute("SELECT set_config('algobot.writing', 'signals', true)")
    connection.execute('DELETE FROM signals WHERE strategy_id = %s AND "timestamp" >= %s', (strategy, opened))
    for records in ("lineage", "dirty_days"):
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE table_name = 'signals' AND strategy_id = %s AND day >= %s").format(
                sql.Identifier(records)
            ),
            (strategy, until),
        )
