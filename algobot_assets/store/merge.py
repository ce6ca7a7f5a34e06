"""Make one stretch of a table equal to a frame: COPY if it is empty, else stage, merge and delete.

The stored rows are then compared with the frame by count and exact sums: no encoder is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import StoreError
from algobot_assets.schema.windows import Window
from algobot_assets.store.copy import copy_in
from algobot_assets.store.reader import scope
from algobot_assets.store.session import fetch_row, fetch_value

#: Tables with a column that pgpq does not encode (JSONB).
_TEXT_ONLY = frozenset({"strategies"})


def write_stretch(connection: psycopg.Connection, window: Window, rows: pl.DataFrame) -> tuple[int, int, int]:
    """Replace the window's stored rows by ``rows``; return how many were inserted, updated and deleted."""
    condition, parameters = scope(window)
    table = sql.Identifier(window.table)
    occupied = fetch_value(
        connection.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM {} AS t WHERE {})").format(table, condition), parameters
        ),
        bool,
    )
    if not occupied and not _stored_under_another_day(connection, window, rows):
        copy_in(connection, window.table, rows, binary=window.table not in _TEXT_ONLY)
        _compare(connection, window, window.table, condition, parameters, rows)
        return rows.height, 0, 0
    return _merge(connection, window, rows, condition, parameters)


def _stored_under_another_day(connection: psycopg.Connection, window: Window, rows: pl.DataFrame) -> bool:
    """Return whether a row to be written may be stored under another day: a trade that now closes later or earlier."""
    outside = [name for name in window.rule.natural_key if name not in (*window.rule.scope, window.rule.time)]
    if window.rule.time != "day" or not outside:
        return False
    (name,) = outside
    keys = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in window.rule.scope)
    # by span instead of by key: an unneeded merge is still correct, and thousands of keys cost more than the COPY
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} AND {} BETWEEN %s AND %s)").format(
        sql.Identifier(window.table), keys if window.rule.scope else sql.SQL("true"), sql.Identifier(name)
    )
    scoped = [getattr(window, column) for column in window.rule.scope]
    return fetch_value(connection.execute(statement, [*scoped, rows[name].min(), rows[name].max()]), bool)


def _merge(
    connection: psycopg.Connection,
    window: Window,
    rows: pl.DataFrame,
    condition: sql.Composed,
    parameters: list[Any],
) -> tuple[int, int, int]:
    """Stage the rows, then delete, update and insert until the table matches them; ids stay.

    A trade that now closes on another day is found by its natural key.
    """
    table, stage = sql.Identifier(window.table), sql.Identifier("stage")
    names = rows.columns
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    connection.execute("DROP TABLE IF EXISTS pg_temp.stage")
    connection.execute(
        sql.SQL("CREATE TEMP TABLE stage ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(columns, table)
    )
    copy_in(connection, "stage", rows, binary=window.table not in _TEXT_ONLY)
    connection.execute("ANALYZE pg_temp.stage")
    _compare(connection, window, "stage", sql.SQL("true"), [], rows)
    keys = sql.SQL(" AND ").join(
        sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in window.rule.natural_key
    )
    deleted = connection.execute(
        sql.SQL("DELETE FROM {} AS t WHERE {} AND NOT EXISTS (SELECT FROM {} AS s WHERE {})").format(
            table, condition, stage, keys
        ),
        parameters,
    ).rowcount
    by_key = window.rule.time == "day"
    on, arguments = (keys, []) if by_key else (sql.SQL("{} AND {}").format(keys, condition), parameters)
    matched = fetch_value(
        connection.execute(
            sql.SQL("SELECT count(*) FROM {} AS t JOIN {} AS s ON {}").format(table, stage, on), arguments
        ),
        int,
    )
    values = [name for name in names if name not in window.rule.natural_key]
    merged = connection.execute(
        sql.SQL(
            "MERGE INTO {table} AS t USING {stage} AS s ON {on} "
            "WHEN MATCHED AND ({old}) IS DISTINCT FROM ({new}) THEN UPDATE SET {sets}, updated_at = now() "
            "WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({staged})"
        ).format(
            table=table,
            stage=stage,
            on=on,
            old=_list_columns("t", values),
            new=_list_columns("s", values),
            sets=sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(sql.Identifier(n)) for n in values),
            columns=columns,
            staged=_list_columns("s", names),
        ),
        arguments,
    ).rowcount
    inserted = rows.height - matched
    return inserted, merged - inserted, deleted


def _list_columns(alias: str, names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def _compare(
    connection: psycopg.Connection,
    window: Window,
    table: str,
    condition: sql.Composable,
    parameters: list[Any],
    rows: pl.DataFrame,
) -> None:
    """Raise StoreError if the count or an exact sum of the stored rows differs from that of ``rows``.

    The sums are wider than any column: a sum of 32-bit integers overflows 32 bits after a few thousand rows.
    """
    expressions: list[sql.Composable] = [sql.SQL("count(*)")]
    expected: list[int | Decimal] = [rows.height]
    for name, dtype in rows.schema.items():
        column = sql.Identifier("t", name)
        if dtype.is_decimal() or dtype.is_integer():
            expressions.append(sql.SQL("coalesce(sum({}), 0)").format(column))
            wide = pl.Decimal(38, 8) if dtype.is_decimal() else pl.Int128()
            expected.append(rows.select(pl.col(name).cast(wide).sum()).item())
        elif dtype == pl.Float64:
            expressions.append(
                sql.SQL("coalesce(sum(('x' || encode(float8send({}), 'hex'))::bit(64)::bigint), 0)").format(column)
            )
            expected.append(_sum_of_bits(rows[name]))
    found = fetch_row(
        connection.execute(
            sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(
                sql.SQL(", ").join(expressions), sql.Identifier(table), condition
            ),
            parameters,
        )
    )
    if list(map(Decimal, found)) != list(map(Decimal, expected)):
        raise StoreError(
            f"{window}: what the database received differs from what was sent (count and sums {found}, "
            f"expected {expected}). Nothing was written. Please report it with the versions of pgpq and psycopg."
        )


def _sum_of_bits(column: pl.Series) -> int:
    """Sum the bits of doubles as signed 64-bit integers, in two halves that each fit into 64 bits."""
    bits = column.drop_nulls().to_numpy().view(np.int64)
    return int((bits >> 32).sum()) * 2**32 + int((bits & 0xFFFFFFFF).sum())
