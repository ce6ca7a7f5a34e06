"""Read windows of tables exactly, and only the requested columns.

There are two ways, chosen by measurement (docs/performance.md): COPY parsed by Polars for large windows and for reads
that must share a transaction, connectorx for the client and for small tables. Both return the same frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import StoreError
from algobot_assets.schema.frames import UTC, schema_of
from algobot_assets.schema.intervals import opens_window
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.store import archive
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out, select_columns

#: connectorx's dtypes by PostgreSQL's type number; other types are inferred from the rows.
_DTYPES: dict[int, pl.DataType] = {
    psycopg.postgres.types[name].oid: dtype
    for name, dtype in {
        "bool": pl.Boolean(),
        "int2": pl.Int16(),
        "int4": pl.Int32(),
        "int8": pl.Int64(),
        "float4": pl.Float32(),
        "float8": pl.Float64(),
        "text": pl.String(),
        "varchar": pl.String(),
        "date": pl.Date(),
        "timestamptz": UTC,
        "numeric": pl.Decimal(38, 10),
        "bytea": pl.Binary(),
    }.items()
}


def scope(window: Window, alias: str = "t") -> tuple[sql.Composed, list[Any]]:
    """Return the condition that selects the window's rows of its table, and its parameters."""
    rule = window.rule
    lo, hi = window.bounds
    column = sql.Identifier(alias, rule.time)
    conditions = [sql.SQL("{} >= %s").format(column), sql.SQL("{} < %s").format(column)]
    parameters: list[Any] = [lo, hi]
    for name in rule.scope:
        conditions.append(sql.SQL("{} = %s").format(sql.Identifier(alias, name)))
        parameters.append(getattr(window, name))
    if window.table == "performance_metrics":
        conditions.append(
            sql.SQL("{} IN (SELECT id FROM trade_history WHERE strategy_id = %s)").format(
                sql.Identifier(alias, "trade_id")
            )
        )
        parameters.append(window.strategy_id)
    return sql.SQL(" AND ").join(conditions), parameters


def read_window(
    store: Store,
    window: Window,
    columns: Sequence[str] | None = None,
    connection: psycopg.Connection | None = None,
) -> pl.DataFrame:
    """Return the window's rows in order of time; ``columns`` default to all that a frame has (no id).

    "id" may be among them. With ``connection`` the read is part of its transaction. Rows of archived months come from
    their files, identical to the last bit; ArchiveError if a file is missing or damaged.
    """
    names = list(columns) if columns is not None else list(schema_of(window.table))

    def work(connection: psycopg.Connection) -> pl.DataFrame:
        if window.table not in MONTHLY:
            return read_stored(connection, window, names)
        archive.hold(connection, window.table)
        first, end = opens_window(window.interval, window.first, window.end, window.phase)
        files = archive.files_of(connection, *window.key[:3], first, end, [window.strategy_id])
        if not files:
            return read_stored(connection, window, names)
        timed = list(dict.fromkeys([*names, "timestamp"]))
        rows = store.archive.rows(files, window.table, first, end, timed)
        return pl.concat([rows, read_stored(connection, window, timed)]).sort("timestamp").select(names)

    if connection is not None:
        return work(connection)
    return store.retrying(work, f"Reading {window}")


def read_stored(connection: psycopg.Connection, window: Window, columns: Sequence[str]) -> pl.DataFrame:
    """Return the window's rows that are in the database, in order of time."""
    schema = schema_of(window.table, generated=True)
    selected = {name: schema[name] for name in columns}
    condition, parameters = scope(window)
    query = sql.SQL("SELECT {} FROM {} AS t WHERE {} ORDER BY {}").format(
        select_columns(selected, "t"),
        sql.Identifier(window.table),
        condition,
        sql.SQL(", ").join(
            sql.Identifier("t", name)
            for name in (window.rule.time, *(k for k in window.rule.natural_key if k != window.rule.time))
        ),
    )
    return copy_out(connection, query, parameters, selected)


def read_table(store: Store, table: str, *order: str) -> pl.DataFrame:
    """Return all rows of a small table with every column, ids included, ascending by ``order``.

    COPY on a pooled connection takes 2 ms; connectorx opens connections of its own, 20 ms.
    """
    schema = schema_of(table, generated=True)
    statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
        select_columns(schema),
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, order)),
    )
    return store.retrying(lambda connection: copy_out(connection, statement, (), schema), f"Reading {table}")


def query(
    store: Store,
    statement: sql.SQL | sql.Composed | str,
    parameters: Sequence[Any] | Mapping[str, Any] = (),
    schema: Mapping[str, pl.DataType] | None = None,
) -> pl.DataFrame:
    """Return the rows of any SELECT through connectorx, in one snapshot; ``schema`` casts columns to their dtypes.

    NUMERIC arrives as Decimal(38, 10), TIMESTAMPTZ as UTC. psycopg inserts the parameters on the client, because
    connectorx takes plain text only.
    """
    with store.transaction() as connection:
        text = psycopg.ClientCursor(connection).mogrify(statement, parameters or None)
    try:
        url = store.connectorx_url
    except StoreError:  # a pooler, or a kind of login that connectorx lacks, such as sslmode=verify-full
        return _fetch_by_psycopg(store, text, schema)
    settings = [f"SELECT set_config('{name}', '{value}', false)" for name, value in store.session.items()]
    try:
        frame = _run_with_timeout(lambda: _read_sql(url, text, settings), store.database.patience)
    except TimeoutError:
        raise StoreError(
            f"{store.database!r} has not answered for {store.database.patience:g} s. Check that its server is running."
        ) from None
    except BaseException as error:  # a panic of connectorx is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise StoreError(f"The query failed in the database: {str(error).splitlines()[0]}") from error
    if schema:
        frame = frame.cast({name: dtype for name, dtype in schema.items() if name in frame.columns})
    return frame


def _read_sql(url: str, text: str, settings: list[str]) -> pl.DataFrame:
    import connectorx  # 16 MB, needed only by such a read

    frame: pl.DataFrame = connectorx.read_sql(
        url, text, return_type="polars", protocol="binary", pre_execution_query=settings
    )
    return frame


def _run_with_timeout(work: Callable[[], pl.DataFrame], patience: float) -> pl.DataFrame:
    """Return the result of ``work``; TimeoutError after ``patience`` seconds (0: never), as connectorx has none."""
    if not patience:
        return work()
    result: Future[pl.DataFrame] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # a panic is not an Exception
            result.set_exception(error)

    Thread(target=run, name="connectorx", daemon=True).start()
    return result.result(patience)


def _fetch_by_psycopg(store: Store, text: str, schema: Mapping[str, pl.DataType] | None) -> pl.DataFrame:
    """Return the rows of ``text`` through psycopg, one by one, with the dtypes that connectorx gives."""
    with store.transaction() as connection:
        cursor = connection.execute(text)
        found = {column.name: _DTYPES.get(column.type_code) for column in cursor.description or ()}
        rows = cursor.fetchall()
    known = {name: (schema or {}).get(name, dtype) for name, dtype in found.items()}
    return pl.DataFrame(rows, schema=known, orient="row", infer_schema_length=None)
