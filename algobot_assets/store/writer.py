"""Writing a window: which statements belong together, and in which order.

One transaction per window: advisory locks per table and database month in ascending order; days whose digest is
recorded are left alone; an empty stretch is filled by COPY straight in; else rows are staged, those that differ
are merged, those that are gone are deleted, so ids stay and a repeat writes nothing; count and exact sums are
compared with the frame; lineage is recorded; commit. A killed run leaves each window old or new, never half.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import ArchivedError, StoreError
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import consecutive, day_of, months_between
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window, canonical_order, content_columns
from algobot_assets.store import archive, lineage
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_in
from algobot_assets.store.digests import NOTHING, day_digests
from algobot_assets.store.lineage import DayInputs, DayLineage
from algobot_assets.store.month_partitions import ensure_months

#: Tables with a column that pgpq does not know (JSONB).
_TEXT_ONLY = frozenset({"strategies"})
Extra = Callable[[psycopg.Connection], None]
DayDigests = Mapping[date, tuple[int, bytes]]


@dataclass(frozen=True)
class Written:
    """What writing a window did, in rows."""

    rows: int
    inserted: int
    updated: int
    deleted: int

    @property
    def changed(self) -> int:
        """Rows inserted, updated or deleted."""
        return self.inserted + self.updated + self.deleted


def write_window(
    store: Store,
    window: Window,
    frame: pl.DataFrame,
    days: Sequence[DayInputs],
    extra: Extra | None = None,
    digests: DayDigests | None = None,
) -> Written:
    """Make the stored rows of the window's ``days`` equal to ``frame``, in one transaction with their lineage.

    ``frame`` has the columns and dtypes of ``schema_of(window.table)`` and only rows of those days; days without
    rows are emptied. ``extra`` runs in the same transaction, before lineage. ``digests``: what ``day_digests`` says
    of the frame, where it has been asked already. Raises StoreError, with nothing
    changed, when the frame does not fit the window or the database refuses; ArchivedError where rows of an archived
    month would change.
    """
    frame = _fitted(window, frame)
    row_days = days_of(window, frame)
    wanted = {day.day: day for day in days}
    strays = set(row_days.unique().to_list()) - set(wanted)
    if strays:
        raise StoreError(
            f"Rows of {min(strays)} were computed for {window}, where they do not belong; nothing was written."
        )
    outputs = day_digests(frame, content_columns(window.table), row_days) if digests is None else digests

    def work(connection: psycopg.Connection) -> Written:
        archived = _lock(connection, window)
        recorded = lineage.read(connection, window)
        differing = _differing(wanted, recorded, outputs)
        _refuse_archived(window, differing, archived)
        inserted = updated = deleted = 0
        if differing or any(day.damaged for day in recorded.values()):
            connection.execute("SELECT set_config('algobot.writing', %s, true)", (window.table,))
        for run in consecutive(differing):
            part = window.of(run[0], run[-1] + timedelta(days=1))
            rows = frame.filter(row_days.is_between(run[0], run[-1]))
            counts = _write_stretch(connection, part, rows)
            inserted, updated, deleted = (a + b for a, b in zip((inserted, updated, deleted), counts, strict=True))
            lineage.clear_dirty(connection, part)
        if extra is not None and (differing or not archived):  # of an archived month it is as it was
            extra(connection)
        lineage.write(
            connection,
            window,
            [
                (day, *outputs.get(day.day, (0, NOTHING)))
                for day in wanted.values()
                if day.day in differing or not recorded[day.day].same_inputs(day)
            ],
            store.run_id,
            new=recorded.keys().isdisjoint(wanted),
        )
        return Written(frame.height, inserted, updated, deleted)

    if window.table in MONTHLY:
        ensure_months(store, months_of(window))  # by itself: it keeps writers of other months waiting until it commits
    try:
        return store.retrying(work, f"Writing {window}")
    except StoreError as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise StoreError(f"{window} was not written: {_holder(store, window)} Run it again then.") from error
        raise


#: Who has what a writer waits for, the likeliest first: another writer of the months, somebody who has locked the table
#: or a leaf of it, somebody with rows of it changed and not committed.
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


def _holder(store: Store, window: Window) -> str:
    """Who keeps the window from being written and until when, by the names of their connections."""
    with store.transaction() as connection:
        rows = connection.execute(
            _HOLDERS,
            {
                "table": window.table,
                "class": lock_class(window.table) % 2**32,
                "months": [month.year * 100 + month.month for month in months_of(window)],
            },
        ).fetchall()
    if not rows:
        return "what it waited for has been given back just now."
    likeliest = [row[1:] for row in rows if row[0] == rows[0][0]]
    names = [f"{name or 'a connection'} of {user} (process {pid})" for name, user, pid in likeliest]
    what = {
        1: "its months are being written by {}, until that run ends.",
        2: f"{window.table} or a partition of it is locked by {{}}, until that transaction ends.",
        3: f"rows of {window.table} are being changed by {{}}, until that transaction ends.",
    }[rows[0][0]]
    return what.format(" and ".join(names))


def lock_class(table: str) -> int:
    """The first number of the advisory locks on a table's months; the second is the month as 202401."""
    return zlib.crc32(table.encode()) - 2**31


def refuse_archived(
    connection: psycopg.Connection, window: Window, frame: pl.DataFrame, days: Sequence[DayInputs]
) -> None:
    """ArchivedError where ``write_window`` would raise it; costs one question where no month is archived."""
    if window.table not in MONTHLY:
        return
    archived = archive.archived_months(connection, months_of(window))
    if archived:
        frame = _fitted(window, frame)
        outputs = day_digests(frame, content_columns(window.table), days_of(window, frame))
        recorded = lineage.read(connection, window)
        _refuse_archived(window, _differing([day.day for day in days], recorded, outputs), archived)


def _differing(
    wanted: Iterable[date], recorded: Mapping[date, DayLineage], outputs: Mapping[date, tuple[int, bytes]]
) -> list[date]:
    """The days whose rows are not those that are recorded."""
    return [
        day
        for day in sorted(wanted)
        if day not in recorded or recorded[day].dirty or recorded[day].output != outputs.get(day, (0, NOTHING))[1]
    ]


def _refuse_archived(window: Window, days: Sequence[date], archived: Sequence[date]) -> None:
    """ArchivedError where one of ``days`` has its candles in an archived month."""
    if not archived:
        return
    concerned = {day: month for day in days for month in archived if _has_opens(window, day, month)}
    if concerned:
        first, last = min(concerned), max(concerned)
        raise ArchivedError(
            f"{window.of(first, last + timedelta(days=1))}: the month is archived, and its rows would have to be "
            f"written. Bring it back first: {archive.restore_command(concerned.values())}."
        )


def _has_opens(window: Window, day: date, month: date) -> bool:
    lo, hi = window.of(day, day + timedelta(days=1)).bounds
    return lo < hi and (lo.year, lo.month) == (month.year, month.month)


def _fitted(window: Window, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the table's columns in canonical order, sorted; StoreError where columns or dtypes differ."""
    schema = schema_of(window.table)
    missing = [name for name in schema if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in schema]
    if missing or unknown:
        parts = [f"{word} {', '.join(names)}" for word, names in (("lack", missing), ("do not know", unknown)) if names]
        raise StoreError(f"The frame for {window} cannot be written: its columns {' and '.join(parts)}.")
    wrong = {name: frame.schema[name] for name, dtype in schema.items() if frame.schema[name] != dtype}
    if wrong:
        text = "; ".join(f"{name} is {is_}, must be {schema[name]}" for name, is_ in wrong.items())
        raise StoreError(f"The frame for {window} cannot be written: {text}.")
    return frame.select(*schema).sort(canonical_order(window.table), maintain_order=True)


def days_of(window: Window, frame: pl.DataFrame) -> pl.Series:
    """The day (Date) to which each row of the window's table belongs."""
    if window.rule.time == "timestamp":
        return frame.select(day_of(window.interval, window.phase).alias("day"))["day"]
    return frame[window.rule.time].alias("day")


def months_of(window: Window) -> list[date]:
    """The database months that the window's rows can lie in, ascending."""
    lo, hi = window.bounds
    if isinstance(lo, datetime):
        lo, hi = lo.date(), (hi - timedelta(microseconds=1)).date() + timedelta(days=1)
    return months_between(lo, hi)


def lock_months(connection: psycopg.Connection, table: str, months: Sequence[date]) -> None:
    """One lock per table and database month, ascending, so that no two writers of one month meet half-way."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s::int, month) FROM unnest(%s::int[]) AS month",
        (lock_class(table), [month.year * 100 + month.month for month in months]),
    )


def _lock(connection: psycopg.Connection, window: Window) -> list[date]:
    """Lock the window's months; those of them that are archived."""
    months = months_of(window)
    lock_months(connection, window.table, months)
    if window.table not in MONTHLY:
        return []
    return archive.archived_months(connection, months)


def scope(window: Window, alias: str = "t") -> tuple[sql.Composable, list[Any]]:
    """The condition that selects the window's rows of its table, and its parameters."""
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


def _write_stretch(connection: psycopg.Connection, window: Window, rows: pl.DataFrame) -> tuple[int, int, int]:
    """Insert, or stage and merge, one stretch of days; (inserted, updated, deleted)."""
    condition, parameters = scope(window)
    table = sql.Identifier(window.table)
    occupied = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} AS t WHERE {})").format(table, condition), parameters
    ).fetchone()
    if not occupied[0] and not _elsewhere(connection, window, rows):
        copy_in(connection, window.table, rows, binary=window.table not in _TEXT_ONLY)
        _compare(connection, window, window.table, condition, parameters, rows)
        return rows.height, 0, 0
    return _merge(connection, window, rows, condition, parameters)


def _elsewhere(connection: psycopg.Connection, window: Window, rows: pl.DataFrame) -> bool:
    """Whether a row to be written is stored under another day: a trade that now closes later or earlier."""
    outside = [name for name in window.rule.natural_key if name not in (*window.rule.scope, window.rule.time)]
    if window.rule.time != "day" or not outside:
        return False
    (name,) = outside
    keys = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in window.rule.scope)
    # the whole span and not each key: a needless merge is right too, and thousands of keys cost more than the COPY
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} AND {} BETWEEN %s AND %s)").format(
        sql.Identifier(window.table), keys if window.rule.scope else sql.SQL("true"), sql.Identifier(name)
    )
    scoped = [getattr(window, column) for column in window.rule.scope]
    return connection.execute(statement, [*scoped, rows[name].min(), rows[name].max()]).fetchone()[0]


def _merge(
    connection: psycopg.Connection,
    window: Window,
    rows: pl.DataFrame,
    condition: sql.Composable,
    parameters: list[Any],
) -> tuple[int, int, int]:
    """Stage the rows, then delete what is gone, update what differs and insert what is new; ids stay.

    A trade that now closes on another day is found by its natural key, wherever it was.
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
    matched = connection.execute(
        sql.SQL("SELECT count(*) FROM {} AS t JOIN {} AS s ON {}").format(table, stage, on), arguments
    ).fetchone()[0]
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
            old=_row("t", values),
            new=_row("s", values),
            sets=sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(sql.Identifier(n)) for n in values),
            columns=columns,
            staged=_row("s", names),
        ),
        arguments,
    ).rowcount
    inserted = rows.height - matched
    return inserted, merged - inserted, deleted


def _row(alias: str, names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def _compare(
    connection: psycopg.Connection,
    window: Window,
    table: str,
    condition: sql.Composable,
    parameters: list[Any],
    rows: pl.DataFrame,
) -> None:
    """Count and exact sums of what the database now holds against the frame: no encoder is trusted."""
    expressions, expected = [sql.SQL("count(*)")], [rows.height]
    for name, dtype in rows.schema.items():
        column = sql.Identifier("t", name)
        if dtype.is_decimal() or dtype.is_integer():
            expressions.append(sql.SQL("coalesce(sum({}), 0)").format(column))
            expected.append(rows[name].cast(pl.Decimal(38, 8)).sum() if dtype.is_decimal() else rows[name].sum())
        elif dtype == pl.Float64:
            expressions.append(
                sql.SQL("coalesce(sum(('x' || encode(float8send({}), 'hex'))::bit(64)::bigint), 0)").format(column)
            )
            expected.append(_sum_of_bits(rows[name]))
    found = connection.execute(
        sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(
            sql.SQL(", ").join(expressions), sql.Identifier(table), condition
        ),
        parameters,
    ).fetchone()
    if list(map(Decimal, found)) != list(map(Decimal, expected)):
        raise StoreError(
            f"What arrived in the database differs from what was sent for {window} (counts and sums: {found} "
            f"instead of {expected}); nothing was written. Please report it with the versions of pgpq and psycopg."
        )


def _sum_of_bits(column: pl.Series) -> int:
    bits = column.drop_nulls().to_numpy().view(np.int64)
    return int((bits >> 32).sum()) * 2**32 + int((bits & 0xFFFFFFFF).sum())
