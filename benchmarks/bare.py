"""Two yardsticks for writing a table: a bare COPY into the same keyed table, and the least that its rows can cost.

The bare COPY pays for keys and row-by-row references, as a plain load into these tables does. The floor does not: COPY
into a heap by natural key, one join per reference, and the keys built afterwards.
"""

from __future__ import annotations

import time
from datetime import date

import polars as pl
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import months_between
from algobot_assets.schema.windows import WINDOWING, frame_schema
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_in, copy_out, select_columns
from benchmarks.year import COPIED, FIRST

_REFERENCE = ("configurations", "strategies", "risk_parameters")


def copied(store: Store, table: str, frame: pl.DataFrame) -> float:
    """Seconds of one transaction that does nothing but COPY BINARY of buffers that are ready."""
    arrow = frame.to_arrow()
    encoder = ArrowToPostgresBinaryEncoder(arrow.schema)
    buffers = [encoder.write_header(), *map(encoder.write_batch, arrow.to_batches(65_536)), encoder.finish()]
    columns = ", ".join(f'"{name}"' for name in frame.columns)
    began = time.perf_counter()
    statement = f"COPY {table} ({columns}) FROM STDIN BINARY"
    with store.transaction() as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for buffer in buffers:
            copy.write(buffer)
    return time.perf_counter() - began


def yardsticks(store: Store, bare: Store, end: date) -> dict[str, dict[str, float]]:
    """Seconds of both for the rows of each table, measured in the second database, which then holds the same rows."""
    with bare.transaction() as connection:
        for month in months_between(FIRST, end):
            connection.execute("SELECT ensure_month(%s)", (month,))
    for table in _REFERENCE:
        with store.transaction() as source, bare.transaction() as target:
            schema = schema_of(table, generated=True)
            rows = copy_out(source, _all(table, list(schema)), (), schema)
            copy_in(target, table, rows, binary=False)
    found: dict[str, dict[str, float]] = {}
    for table in COPIED:
        schema = schema_of(table, generated=True)
        with store.transaction() as connection:
            rows = copy_out(connection, _all(table, list(schema)), (), schema)
        found[table] = {"bare": copied(bare, table, rows), "floor": _floor(bare, table, rows)}
    return found


def _all(table: str, columns: list[str]) -> sql.Composed:
    schema = schema_of(table, generated=True)
    return sql.SQL("SELECT {} FROM {} ORDER BY id").format(
        select_columns({name: schema[name] for name in columns}), sql.Identifier(table)
    )


def _floor(store: Store, table: str, rows: pl.DataFrame) -> float:
    """Seconds to store the rows as a heap by natural key, join what they lead to, and build the keys."""
    rule = WINDOWING[table]
    own = [name for name in frame_schema(table) if name in rows.columns]
    if rule.linked_table == "trade_history":  # a trade's metrics are found by its strategy and entry
        with store.transaction() as connection:
            keys = {"id": pl.Int64(), "strategy_id": pl.Int64(), "entry_time": schema_of("trade_history")["entry_time"]}
            query = sql.SQL("SELECT {} FROM trade_history").format(select_columns(keys))
            trades = copy_out(connection, query, (), keys)
        rows = rows.join(trades, left_on="trade_id", right_on="id")
        own = list(frame_schema(table))
    natural = [name for name in rule.natural_key if name not in rule.links]
    keyed = ", ".join(f'"{name}"' for name in natural) or "id"
    partition = ', "timestamp"' if rule.time == "timestamp" else ""
    kinds = ", ".join(f'"{name}" {kind}' for name, kind in _kinds(store, own, table, rule.linked_table))
    heap, final = f"heap_{table}", f"floor_{table}"
    with store.database.connect() as connection:
        connection.execute(f"CREATE TABLE {heap} ({kinds})")
        connection.execute(f"GRANT INSERT ON {heap} TO PUBLIC")
    began = time.perf_counter()
    copied(store, heap, rows.select(own))
    joins = "".join(
        f" JOIN {linked} AS {alias} ON {' AND '.join(f'{alias}.{a} = s.{b}' for a, b in on)}"
        for alias, linked, on in _references(table)
    )
    with store.database.connect() as connection:  # the pipeline's role makes no tables
        link = f", l.id AS {rule.links[0]}" if rule.links else ""
        connection.execute(
            f"CREATE TABLE {final} AS SELECT row_number() OVER () AS id, s.*{link} FROM {heap} AS s{joins}"
        )
        connection.execute(f"ALTER TABLE {final} ADD PRIMARY KEY (id{partition})")
        connection.execute(f"CREATE UNIQUE INDEX ON {final} ({keyed})")
    seconds = time.perf_counter() - began
    with store.database.connect() as connection:
        stored = connection.execute(f"SELECT count(*) FROM {final}").fetchone()
        connection.execute(f"DROP TABLE {heap}, {final}")
    if stored != (rows.height,):
        raise SystemExit(f"{table}: the floor holds {stored} of {rows.height} rows; no figure is worth anything.")
    return seconds


def _references(table: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return alias, table and equal columns of each reference."""
    rule = WINDOWING[table]
    found = []
    if rule.linked_table:
        found.append(("l", rule.linked_table, [(f'"{name}"', f'"{name}"') for name in rule.linked_by]))
    if "strategy_id" in schema_of(table):
        found.append(("v", "strategies", [("id", "strategy_id")]))
    return found


def _kinds(store: Store, names: list[str], *tables: str) -> list[tuple[str, str]]:
    """Return the SQL types of columns, from the first table that has each."""
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod) FROM pg_attribute
                WHERE attrelid = ANY(%s::regclass[]) AND attnum > 0""",
            ([table for table in tables if table],),
        ).fetchall()
    kinds = {(table, name): kind for table, name, kind in rows}
    return [(name, next(kinds[table, name] for table in tables if (table, name) in kinds)) for name in names]
