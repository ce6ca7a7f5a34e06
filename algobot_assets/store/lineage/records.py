"""Read and write lineage: the inputs of every partition of every table.

There is one row per table, market or strategy, and day, written in the transaction of the rows it describes. The
database's view stale_partitions derives stale partitions from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import psycopg
from psycopg import sql

from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage.digests import NOTHING, state_digest


@dataclass(frozen=True)
class DayInputs:
    """The inputs of one computed day of a window.

    ``inputs``: output digests of the partitions read, concatenated in fixed order. ``parameters``: digest of the
    settings in force. ``state_in``: digest of the carried state at its start; ``state_out``: the state at its end
    (None: none). ``complete_through``: the time up to which the day is complete, UTC.
    """

    day: date
    complete_through: datetime
    inputs: bytes = NOTHING
    parameters: bytes = NOTHING
    code_version: str = ""
    state_in: bytes | None = None
    state_out: np.ndarray | None = field(default=None, compare=False)

    @property
    def is_complete(self) -> bool:
        """Whether the day's end has passed and every candle is stored or confirmed absent."""
        return self.complete_through >= midnight(self.day + timedelta(days=1))


@dataclass(frozen=True)
class DayLineage(DayInputs):
    """One recorded day: its inputs, and the digest and number of its rows.

    ``dirty``: its rows were changed by hand since. ``damaged``: its carried state differs from the recorded digest.
    """

    output: bytes = NOTHING
    rows: int = 0
    dirty: bool = False
    damaged: bool = False

    def same_inputs(self, inputs: DayInputs) -> bool:
        """Return whether the day was computed from exactly ``inputs`` and its rows and state are unchanged."""
        return not (self.dirty or self.damaged) and (
            self.complete_through,
            self.inputs,
            self.parameters,
            self.code_version,
            self.state_in,
        ) == (inputs.complete_through, inputs.inputs, inputs.parameters, inputs.code_version, inputs.state_in)


Key = tuple[str, str, str, int]
_KEY = ("table_name", "symbol", "interval", "strategy_id", "day")
_VALUES = (
    "rows",
    "input_digest",
    "parameters_digest",
    "code_version",
    "state_in",
    "state_out",
    "state_digest",
    "output_digest",
    "complete_through",
    "run_id",
)


def read(connection: psycopg.Connection, window: Window) -> dict[date, DayLineage]:
    """Return the recorded days of the window, by day."""
    rows = connection.execute(
        """SELECT l.day, l.complete_through, l.input_digest, l.parameters_digest, l.code_version, l.state_in,
                  l.state_out, l.output_digest, l.rows, d.day IS NOT NULL, l.state_digest
             FROM lineage AS l LEFT JOIN dirty_days AS d USING (table_name, symbol, "interval", strategy_id, day)
            WHERE l.table_name = %s AND l.symbol = %s AND l."interval" = %s AND l.strategy_id = %s
              AND l.day >= %s AND l.day < %s
            ORDER BY l.day""",
        (*window.key, window.first, window.end),
    )
    recorded: dict[date, DayLineage] = {}
    for row in rows:
        state = None if row[6] is None else np.array(row[6], dtype=np.float64)
        recorded[row[0]] = DayLineage(
            row[0],
            row[1].astimezone(UTC),
            bytes(row[2]),
            bytes(row[3]),
            row[4],
            None if row[5] is None else bytes(row[5]),
            state,
            bytes(row[7]),
            row[8],
            row[9],
            state_digest(state) != (None if row[10] is None else bytes(row[10])),
        )
    return recorded


def first_day(connection: psycopg.Connection, window: Window) -> date | None:
    """Return the earliest recorded day of the window's table and market or strategy, whatever the window's days."""
    row = connection.execute(
        """SELECT min(day) FROM lineage
            WHERE table_name = %s AND symbol = %s AND "interval" = %s AND strategy_id = %s""",
        window.key,
    ).fetchone()
    return row[0] if row else None


def rows_by_day(connection: psycopg.Connection, table: str, first: date, end: date) -> dict[date, int]:
    """Return the rows of each recorded day of [first, end), all markets and strategies together."""
    rows = connection.execute(
        """SELECT day, sum(rows)::bigint FROM lineage
            WHERE table_name = %s AND day >= %s AND day < %s GROUP BY day""",
        (table, first, end),
    )
    return dict(rows.fetchall())


def write(
    connection: psycopg.Connection,
    days: Iterable[tuple[Key, DayInputs, int, bytes]],
    run_id: str,
    *,
    new: bool = False,
) -> None:
    """Record days of windows, each with its key and the number and digest of its rows.

    ``new``: none of the days is recorded yet, so they are copied in; else they are staged first.
    """
    records: list[tuple[object, ...]] = [
        (
            *key,
            day.day,
            rows,
            day.inputs,
            day.parameters,
            day.code_version,
            day.state_in,
            day.state_out,
            state_digest(day.state_out),
            output,
            day.complete_through,
            run_id,
        )
        for key, day, rows, output in days
    ]
    if not records:
        return
    if not new:
        connection.execute(_STAGE)
    with connection.cursor(binary=True) as cursor:
        cursor.adapters.register_dumper(np.ndarray, _StateDumper)
        with cursor.copy(_copy("lineage" if new else "staged_lineage")) as copy:
            copy.set_types(_TYPES)
            for record in records:
                copy.write_row(record)
    if not new:
        connection.execute(_RECORD)


class _StateDumper(psycopg.adapt.Dumper):
    """A one-dimensional float64 array as PostgreSQL's binary double precision[], bit for bit."""

    format = psycopg.pq.Format.BINARY
    oid = psycopg.postgres.types["float8"].array_oid

    def dump(self, obj: np.ndarray) -> bytes:
        """Return a header (dimensions, nulls, element type, length, lower bound), then each number with its length."""
        numbers = np.empty(obj.size, dtype=[("length", ">i4"), ("number", ">f8")])
        numbers["length"], numbers["number"] = 8, obj
        return struct.pack(">iiIii", 1, 0, psycopg.postgres.types["float8"].oid, obj.size, 1) + numbers.tobytes()


def _copy(table: str) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table), _COLUMNS)


_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, (*_KEY, *_VALUES)))
#: Types of the columns _KEY and _VALUES.
_TYPES = (
    *("text", "varchar", "varchar", "int8", "date", "int4", "bytea", "bytea", "text", "bytea", "float8[]", "bytea"),
    *("bytea", "timestamptz", "text"),
)
_STAGE = sql.SQL(
    "DROP TABLE IF EXISTS pg_temp.staged_lineage; "
    "CREATE TEMP TABLE staged_lineage ON COMMIT DROP AS SELECT {} FROM lineage WITH NO DATA"
).format(_COLUMNS)
_RECORD = sql.SQL(
    "INSERT INTO lineage ({columns}) SELECT {columns} FROM pg_temp.staged_lineage "
    "ON CONFLICT ({key}) DO UPDATE SET {updates}, written_at = now()"
).format(
    columns=_COLUMNS,
    key=sql.SQL(", ").join(map(sql.Identifier, _KEY)),
    updates=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in _VALUES),
)


def clear_dirty(connection: psycopg.Connection, windows: Sequence[Window]) -> None:
    """Remove the marks of days changed by hand; call it in the transaction that rewrites the windows' days."""
    columns = [(*window.key, window.first, window.end) for window in windows]
    connection.execute(
        """DELETE FROM dirty_days AS d
            USING unnest(%s::text[], %s::varchar[], %s::varchar[], %s::bigint[], %s::date[], %s::date[])
                  AS w (table_name, symbol, "interval", strategy_id, first_day, end_day)
            WHERE (d.table_name, d.symbol, d."interval", d.strategy_id)
                = (w.table_name, w.symbol, w."interval", w.strategy_id)
              AND d.day >= w.first_day AND d.day < w.end_day""",
        [list(column) for column in zip(*columns, strict=True)],
    )
