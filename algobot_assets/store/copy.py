"""Copy frames into and out of PostgreSQL by COPY, exact to the last digit.

In: Polars to Arrow to binary COPY by pgpq, CSV on platforms without a wheel of pgpq. Out: CSV blocks, parsed by Polars
while the next ones arrive.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import StoreError
from algobot_assets.schema.frames import UTC

try:
    from pgpq import ArrowToPostgresBinaryEncoder
except ImportError:  # no wheel for this platform
    _BINARY = False
else:
    _BINARY = True

_BATCH = 65_536
_BLOCK = 8 << 20
#: Types whose text Polars does not parse: times arrive as microseconds (``select_columns``), booleans as t and f.
_AS_SENT = {UTC: pl.Int64(), pl.Boolean(): pl.String()}


def copy_in(connection: psycopg.Connection, table: str, frame: pl.DataFrame, *, binary: bool = True) -> None:
    """COPY the rows of ``frame`` into ``table``, matching columns by name.

    Strings, integers, decimals, floats, booleans, dates and UTC times arrive unchanged; NaN stays NaN and does not
    become NULL. ``binary=False`` sends text, for types that pgpq does not encode (JSONB).
    """
    if frame.is_empty():
        return
    binary = binary and _BINARY
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, frame.columns)),
        sql.SQL("binary" if binary else "csv"),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        if binary:
            arrow = frame.to_arrow()
            encoder = ArrowToPostgresBinaryEncoder(arrow.schema)
            copy.write(encoder.write_header())
            for batch in arrow.to_batches(max_chunksize=_BATCH):
                copy.write(encoder.write_batch(batch))
            copy.write(encoder.finish())
        else:
            for part in frame.iter_slices(_BATCH):
                copy.write(part.write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f+00").encode())


def copy_out(
    connection: psycopg.Connection,
    query: sql.Composable,
    parameters: Sequence[Any],
    schema: Mapping[str, pl.DataType],
) -> pl.DataFrame:
    """Return the rows of ``query`` as a frame of ``schema`` (its columns in order), in the caller's transaction.

    The query selects times as microseconds since 1970 (see ``select_columns``): parsing them as text halves the rate.
    """
    raw = {name: _AS_SENT.get(dtype, dtype) for name, dtype in schema.items()}

    def parse(block: io.BytesIO) -> pl.DataFrame:
        block.seek(0)
        return pl.read_csv(block, has_header=False, schema=raw)

    parts: list[Future[pl.DataFrame]] = []
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(query)
    with ThreadPoolExecutor(1) as parser, connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        block = io.BytesIO()
        for chunk in copy:  # psycopg hands over whole rows
            block.write(chunk)
            if block.tell() >= _BLOCK:
                parts.append(parser.submit(parse, block))
                block = io.BytesIO()
        if block.tell():
            parts.append(parser.submit(parse, block))
    if not parts:
        return pl.DataFrame(schema=dict(schema))
    try:
        frame = pl.concat([part.result() for part in parts], rechunk=True)
    except pl.exceptions.ComputeError as error:
        reason = str(error).partition(" (column number")[0].partition("\n")[0]
        raise StoreError(
            f"A stored value cannot be read: {reason}. No run wrote it. Find it in the table and correct it."
        ) from error
    return frame.with_columns(
        *(pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC") for name, d in schema.items() if d == UTC),
        *(pl.col(name).str.starts_with("t") for name, dtype in schema.items() if dtype == pl.Boolean),
    )


def select_columns(schema: Mapping[str, pl.DataType], alias: str | None = None) -> sql.Composed:
    """Return the columns of ``schema`` (of the table named ``alias``) in the form that ``copy_out`` expects."""
    return sql.SQL(", ").join(
        _microseconds(name, alias) if dtype == UTC else _column(name, alias) for name, dtype in schema.items()
    )


def _microseconds(column: str, alias: str | None) -> sql.Composed:
    """Return the expression for a TIMESTAMPTZ as microseconds since 1970."""
    # date_part is a double, exact to the microsecond until 2106, and cheaper than extract's numeric
    return sql.SQL("(date_part('epoch', {}) * 1000000)::bigint").format(_column(column, alias))


def _column(name: str, alias: str | None) -> sql.Identifier:
    return sql.Identifier(alias, name) if alias else sql.Identifier(name)
