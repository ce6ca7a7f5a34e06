"""Read the ledger's tables and the declared state, together with the age of the newest data.

Rows come by connectorx, after their age has been read: they may be newer than it says, never older.
"""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.client.query_parts import NAMED, Schema, choose_versions, furthest_behind, range_condition
from algobot_assets.client.results import QueryResult, When
from algobot_assets.schema import frames
from algobot_assets.schema.frames import schema_of
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store
from algobot_assets.store.reader import query

_TRADE: Schema = {"strategy_id": pl.Int64(), "entry_time": frames.UTC, "exit_time": frames.UTC}
#: For each table of the ledger: where its rows come from, their columns, and their order (time first).
_LEDGER: dict[str, tuple[str, Schema, tuple[str, ...]]] = {
    "trade_history": (
        "trade_history AS t",
        {"id": pl.Int64(), **schema_of("trade_history")},
        ("t.exit_time", "t.entry_time"),
    ),
    "performance_metrics": (
        "(SELECT m.*, h.strategy_id, h.entry_time, h.exit_time "
        "FROM performance_metrics AS m JOIN trade_history AS h ON h.id = m.trade_id) AS t",
        {**schema_of("performance_metrics"), **_TRADE},
        ("t.exit_time", "t.entry_time"),
    ),
    "backtest_results": (
        "backtest_results AS t",
        schema_of("backtest_results"),
        ("(t.day::timestamp AT TIME ZONE 'UTC')", "v.strategy_name"),
    ),
}
_DECLARED: dict[str, tuple[str, Schema]] = {
    "configurations": ("configurations AS t", schema_of("configurations")),
    "strategies": ("strategies AS t", {"id": pl.Int64(), **schema_of("strategies")}),
    "risk_parameters": (
        "(SELECT r.*, v.strategy_name, v.version AS strategy_version "
        "FROM risk_parameters AS r JOIN strategies AS v ON v.id = r.strategy_id) AS t",
        {**schema_of("risk_parameters"), "strategy_name": pl.String(), "strategy_version": pl.Int32()},
    ),
}


def read_ledger(
    store: Store, table: str, strategy: str | None, version: int | None, start: When, end: When
) -> QueryResult:
    """Read rows of a ledger table, each with the name and version of its strategy, in order of time."""
    source, schema, order = _LEDGER[table]
    conditions, bounds = range_condition(sql.SQL(order[0]), start, end)

    def freshness(
        connection: psycopg.Connection,
    ) -> tuple[datetime, list[StoredVersion], datetime | None]:
        as_of = catalogue.now(connection)
        wanted = choose_versions(connection, strategy, version, as_of)
        ends = {item: catalogue.computed_through(connection, table, item.id) for item in wanted}
        return as_of, wanted, furthest_behind(ends, as_of)

    as_of, wanted, newest = store.retrying(freshness, f"Reading how far {table} is computed")
    statement = sql.SQL(
        "SELECT {}, v.strategy_name, v.version FROM {} JOIN strategies AS v ON v.id = t.strategy_id "
        "WHERE t.strategy_id = ANY(%s){} ORDER BY {}, t.strategy_id"
    ).format(
        sql.SQL(", ").join(sql.Identifier("t", name) for name in schema),
        sql.SQL(source),
        conditions,
        sql.SQL(", ".join(order)),
    )
    frame = query(store, statement, [[item.id for item in wanted], *bounds], {**schema, **NAMED})
    return QueryResult(frame, newest, as_of)


def read_declared(store: Store, table: str) -> QueryResult:
    """Read all rows of a reference table; its newest data is the version stored or corrected last."""
    source, schema = _DECLARED[table]
    stamps = sql.SQL("SELECT now(), max(updated_at) FROM {}").format(sql.Identifier(table))

    def read_times(connection: psycopg.Connection) -> tuple[datetime, datetime | None]:
        (row,) = connection.execute(stamps).fetchall()
        return row[0], row[1]

    as_of, newest = store.retrying(read_times, f"Reading when {table} was stored")
    statement = sql.SQL("SELECT {} FROM {} ORDER BY t.effective_from, t.id").format(
        sql.SQL(", ").join(sql.Identifier("t", name) for name in schema), sql.SQL(source)
    )
    return QueryResult(query(store, statement, schema=schema), newest and newest.astimezone(UTC), as_of.astimezone(UTC))
