"""Reading windows: only the window, only the columns asked for, exact.

Two readers, by what measures well (docs/performance.md): COPY parsed by Polars for large windows and where a read
must share a transaction, connectorx for the client and for small tables. Both give the same frame.
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
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.store import archive
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out, time_out
from algobot_assets.store.writer import scope

#: connectorx's dtypes by PostgreSQL's number of the type; those of others are told from the rows.
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


def read_window(
    store: Store,
    window: Window,
    columns: Sequence[str] | None = None,
    connection: psycopg.Connection | None = None,
) -> pl.DataFrame:
    """The rows of the window, in order of time; ``columns`` default to all that a frame has (no id).

    "id" may be asked for. With ``connection`` the read is part of its transaction. Rows of archived months come from
    their files, the same to the last bit; ArchiveError where a file is missing or damaged.
    """
    names = list(columns) if columns is not None else list(schema_of(window.table))

    def work(connection: psycopg.Connection) -> pl.DataFrame:
        if window.table not in MONTHLY:
            return read_stored(connection, window, names)
        archive.hold(connection, window.table)
        files = archive.files_of(connection, *window.key[:3], *window.bounds, [window.strategy_id])
        if not files:
            return read_stored(connection, window, names)
        timed = list(dict.fromkeys([*names, "timestamp"]))
        rows = store.archive.rows(files, window.table, *window.bounds, timed)
        return pl.concat([rows, read_stored(connection, window, timed)]).sort("timestamp").select(names)

    if connection is not None:
        return work(connection)
    return store.retrying(work, f"Reading {window}")


def read_stored(connection: psycopg.Connection, window: Window, columns: Sequence[str]) -> pl.DataFrame:
    """The window's rows that are in the database, in order of time."""
    schema = schema_of(window.table, generated=True)
    selected = {name: schema[name] for name in columns}
    condition, parameters = scope(window)
    query = sql.SQL("SELECT {} FROM {} AS t WHERE {} ORDER BY {}").format(
        sql.SQL(", ").join(
            time_out(name, "t") if dtype == UTC else sql.Identifier("t", name) for name, dtype in selected.items()
        ),
        sql.Identifier(window.table),
        condition,
        sql.SQL(", ").join(
            sql.Identifier("t", name)
            for name in (window.rule.time, *(k for k in window.rule.natural_key if k != window.rule.time))
        ),
    )
    return copy_out(connection, query, parameters, selected)


def read_table(store: Store, table: str, *order: str) -> pl.DataFrame:
    """All rows of a small table with every column, ids too, ascending by ``order``.

    By COPY on a connection of the pool, 2 ms: connectorx opens connections of its own, 20 ms.
    """
    schema = schema_of(table, generated=True)
    statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
        sql.SQL(", ").join(time_out(name) if dtype == UTC else sql.Identifier(name) for name, dtype in schema.items()),
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, order)),
    )
    return store.retrying(lambda connection: copy_out(connection, statement, (), schema), f"Reading {table}")


def query(
    store: Store,
    statement: sql.Composable | str,
    parameters: Sequence[Any] = (),
    schema: Mapping[str, pl.DataType] | None = None,
) -> pl.DataFrame:
    """The rows of any SELECT through connectorx, in one snapshot; ``schema`` casts columns to their dtypes.

    NUMERIC arrives as Decimal(38, 10), TIMESTAMPTZ as UTC. Parameters are composed on the client by psycopg, as
    connectorx takes plain text only.
    """
    with store.transaction() as connection:
        text = psycopg.ClientCursor(connection).mogrify(statement, parameters or None)
    try:
        url = store.connectorx_url
    except StoreError:  # a pooler, or a kind of login that connectorx does not know, such as sslmode=verify-full
        return _fetched(store, text, schema)
    settings = [f"SELECT set_config('{name}', '{value}', false)" for name, value in store.session.items()]
    try:
        frame = _in_time(
            lambda: _read_sql(url, text, settings),
            store.database.patience,
        )
    except TimeoutError:
        raise StoreError(
            f"{store.database!r} has not answered for {store.database.patience:g} s; see that its server runs."
        ) from None
    except BaseException as error:  # connectorx panics as PanicException, which is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise StoreError(f"The query failed in the database: {str(error).splitlines()[0]}") from error
    if schema:
        frame = frame.cast({name: dtype for name, dtype in schema.items() if name in frame.columns})
    return frame


def _read_sql(url: str, text: str, settings: list[str]) -> pl.DataFrame:
    import connectorx  # 16 MB that a run without such a read does without

    return connectorx.read_sql(url, text, return_type="polars", protocol="binary", pre_execution_query=settings)


def _in_time(work: Callable[[], pl.DataFrame], patience: float) -> pl.DataFrame:
    """What ``work`` gives, or TimeoutError after ``patience`` seconds (0: never): connectorx itself waits for ever."""
    if not patience:
        return work()
    result: Future[pl.DataFrame] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # a panic is none of Exception
            result.set_exception(error)

    Thread(target=run, name="connectorx", daemon=True).start()
    return result.result(patience)


def _fetched(store: Store, text: str, schema: Mapping[str, pl.DataType] | None) -> pl.DataFrame:
    """The same rows through psycopg, row by row, with the dtypes that connectorx gives."""
    with store.transaction() as connection:
        cursor = connection.execute(text)
        found = {column.name: _DTYPES.get(column.type_code) for column in cursor.description}
        rows = cursor.fetchall()
    known = {name: (schema or {}).get(name, dtype) for name, dtype in found.items()}
    return pl.DataFrame(rows, schema=known, orient="row", infer_schema_length=None)
