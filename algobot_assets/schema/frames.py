"""Derive Polars schemas from the tables: the dtypes in which frames are written and read."""

from __future__ import annotations

from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from algobot_assets.schema.tables import GENERATED, metadata

UTC = pl.Datetime("us", "UTC")
PRICE = pl.Decimal(20, 8)
QUANTITY = pl.Decimal(28, 8)


def dtype_of(kind: sa.types.TypeEngine[Any]) -> pl.DataType:
    """Return the Polars dtype for a column of SQL type ``kind``."""
    match kind:
        case pg.DOUBLE_PRECISION():
            return pl.Float64()
        case sa.Numeric():
            return pl.Decimal(kind.precision, kind.scale or 0)
        case sa.BigInteger():
            return pl.Int64()
        case sa.Integer():
            return pl.Int32()
        case sa.Boolean():
            return pl.Boolean()
        case sa.TIMESTAMP():
            return UTC
        case sa.Date():
            return pl.Date()
        case sa.String() | pg.JSONB():
            return pl.String()
        case sa.LargeBinary():
            return pl.Binary()
        case pg.ARRAY():
            return pl.List(dtype_of(kind.item_type))
    raise TypeError(f"no Polars dtype is defined for {kind!r}")


def schema_of(table: str, *, generated: bool = False) -> dict[str, pl.DataType]:
    """Return the column names and dtypes of ``table``; with ``generated``, also those that the database fills."""
    return {
        column.name: dtype_of(column.type)
        for column in metadata.tables[table].columns
        if generated or column.name not in GENERATED
    }


def empty(table: str) -> pl.DataFrame:
    """Return a frame of ``table`` without rows."""
    return pl.DataFrame(schema=schema_of(table))
