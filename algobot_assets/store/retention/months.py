"""Move one month from the database to the archive, and back.

Archiving is one transaction: take the locks of the month's writers and SHARE on its leaves, so that readers continue
and writers wait; write one file per market, flush it, read it back, and compare it with the table and with lineage;
write a manifest; record the files and drop the leaves; commit. Until the commit the stored month is the truth, and the
next attempt overwrites files without a record; after it every recorded file has been read back. Memory holds one
market's month of one table.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import ArchiveError, StoreError
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import midnight, next_month, phase_of
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store.advisory_locks import lock_months
from algobot_assets.store.archive import ArchivedFile, archived_months, files_of_month, path_of
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_in, copy_out, select_columns
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import NOTHING, content_sha256, day_digests
from algobot_assets.store.month_partitions import leaf, months_present, vacuum_months
from algobot_assets.store.writer import opens_in, row_days

#: Each attempt to drop waits this long for readers, so that later readers never wait longer.
_PATIENCE = "3s"
_ATTEMPTS = 8
_DAY = timedelta(days=1)
#: A candle's day is at most this long after its open, except for 1M, which ends with its month.
_REACH = timedelta(days=7)
Progress = Callable[[str], None]


class NotArchivable(StoreError):
    """The month cannot be archived and stays stored; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class Moved:
    """An archived or restored month: files, rows, and bytes of the files; all 0 if it had no rows."""

    month: date
    files: int
    rows: int
    bytes: int

    @classmethod
    def of(cls, month: date, files: Sequence[ArchivedFile]) -> Moved:
        """Sum over ``files``."""
        return cls(month, len(files), sum(f.rows for f in files), sum(f.size for f in files))


def archive_month(store: Store, month: date, progress: Progress = lambda _: None) -> Moved | None:
    """Move the month to the archive; None if it has no leaves. ``progress`` is called for every file.

    If NotArchivable, ArchiveError or StoreError is raised, the month is stored as before.
    """

    def work(connection: psycopg.Connection) -> Moved | None:
        for table in MONTHLY:
            lock_months(connection, table, [month])
        if month not in months_present(connection):
            return None
        connection.execute("SELECT hold_month(%s)", (month,))
        recorded = files_of_month(connection, month)
        windows = [window for table in MONTHLY for window in _windows(connection, table, month)]
        if recorded and windows:
            raise NotArchivable(
                f"{month:%Y-%m} is archived, yet the database has rows of it ({windows[0]}). Nothing was changed. Copy "
                "them elsewhere and drop the month's partitions, or report it."
            )
        files = recorded or [_export(store, connection, window, month, progress) for window in windows]
        if not recorded and files:
            _write_manifest(store, month, files)
            _record(connection, files, store.run_id)
        _drop(connection, month)
        return Moved.of(month, files)

    return store.retrying(work, f"Archiving {month:%Y-%m}")


def restore_month(store: Store, month: date, progress: Progress = lambda _: None) -> Moved:
    """Restore an archived month: the same rows with the same ids and stamps, compared with the archived ones.

    Its files stay until the month is archived again. If ArchiveError (a file is missing or damaged) or StoreError
    (the month is not archived) is raised, nothing has changed.
    """

    def work(connection: psycopg.Connection) -> Moved:
        for table in MONTHLY:
            lock_months(connection, table, [month])
        files = files_of_month(connection, month)
        if not files:
            raise StoreError(f"{month:%Y-%m} is not archived; {_list_archived(archived_months(connection))}")
        connection.execute("SELECT ensure_month(%s)", (month,))
        for file in files:
            _import(store, connection, file)
            progress(f"{file.path}: {file.rows:,} rows")
        connection.execute("DELETE FROM archived_files WHERE month = %s", (month,))
        return Moved.of(month, files)

    moved = store.retrying(work, f"Restoring {month:%Y-%m}")
    for table in MONTHLY:
        vacuum_months(store, table, [month])
    return moved


def _list_archived(months: Sequence[date]) -> str:
    if not months:
        return "nothing is."
    shown = ", ".join(f"{month:%Y-%m}" for month in months[:24])
    return f"archived are {shown}{' and later ones' if len(months) > 24 else ''}."


def _windows(connection: psycopg.Connection, table: str, month: date) -> list[Window]:
    """Return a window over the month for every market (and strategy) that has rows in the leaf."""
    strategy = "strategy_id" if table == "signals" else "0::bigint"
    rows = connection.execute(
        sql.SQL(
            """SELECT k.symbol, k."interval", k.strategy_id, l.first_open FROM (
                   SELECT DISTINCT symbol, "interval", {} AS strategy_id FROM {}) AS k
                 LEFT JOIN listings AS l ON l.symbol = k.symbol AND l."interval" = k."interval"
                ORDER BY 1, 2, 3"""
        ).format(sql.SQL(strategy), sql.Identifier(leaf(table, month)))
    )
    return [
        Window(table, month, next_month(month), s, i, k, phase_of(opened or midnight(month)) if i == "3d" else None)
        for s, i, k, opened in rows
    ]


def _rows(connection: psycopg.Connection, window: Window, month: date) -> pl.DataFrame:
    """Return all the market's rows in the leaf with every column, in order of time."""
    schema = schema_of(window.table, generated=True)
    strategy = sql.SQL(" AND strategy_id = %s" if window.strategy_id else "")
    query = sql.SQL('SELECT {} FROM {} WHERE symbol = %s AND "interval" = %s{} ORDER BY "timestamp"').format(
        select_columns(schema),
        sql.Identifier(leaf(window.table, month)),
        strategy,
    )
    who = [window.symbol, window.interval, *([window.strategy_id] if window.strategy_id else [])]
    return copy_out(connection, query, who, schema)


def _export(
    store: Store, connection: psycopg.Connection, window: Window, month: date, progress: Progress
) -> ArchivedFile:
    """Write one market's month to a file and read it back."""
    frame = _rows(connection, window, month)
    _compare_with_lineage(connection, window, frame, month)
    content = content_sha256(frame)
    packed = io.BytesIO()
    frame.write_parquet(packed, compression="zstd")
    data = packed.getvalue()
    opened = frame["timestamp"]
    file = ArchivedFile(
        month,
        *window.key,
        path_of(store.database.name, window.table, month, window.symbol, window.interval, window.strategy_id),
        frame.height,
        opened[0],
        opened[-1],
        len(data),
        hashlib.sha256(data).digest(),
        content,
    )
    store.archive.put(file.path, data)
    del frame, data, packed
    if content_sha256(store.archive.read(file)) != content:
        raise ArchiveError(
            f"{store.archive.shown(file.path)} does not return the rows that were written to it. The month stays "
            "stored. Please report it with the version of polars."
        )
    progress(f"{file.path}: {file.rows:,} rows, {file.size:,} bytes")
    return file


def _compare_with_lineage(connection: psycopg.Connection, window: Window, frame: pl.DataFrame, month: date) -> None:
    """Raise NotArchivable if a day of the month is incomplete or its rows differ from lineage."""
    recorded = {
        day: item
        for day, item in lineage.read(connection, window.of(month, window.end + _REACH)).items()
        if opens_in(window, day, month)
    }
    outputs = day_digests(frame, content_columns(window.table), row_days(window, frame))
    for day in sorted(recorded.keys() | outputs.keys()):
        where, item = window.of(day, day + _DAY), recorded.get(day)
        if item is None:
            raise NotArchivable(f"{where}: rows that no run has recorded. Delete them, or materialise the day.")
        if not item.is_complete:
            raise NotArchivable(f"{where}: the day is not complete. Run `algobot refresh`.")
        if item.dirty or item.output != outputs.get(day, (0, NOTHING))[1]:
            raise NotArchivable(f"{where}: the rows are not those that were recorded. Run `algobot refresh`.")


def _write_manifest(store: Store, month: date, files: Sequence[ArchivedFile]) -> None:
    """Write the list of the month's files for people and other programs; the database has the same list."""
    listed = [
        {
            "path": file.path,
            "table": file.table,
            "symbol": file.symbol,
            "interval": file.interval,
            "strategy_id": file.strategy_id or None,
            "rows": file.rows,
            "first_open": file.first_open.astimezone(UTC).isoformat(),
            "last_open": file.last_open.astimezone(UTC).isoformat(),
            "bytes": file.size,
            "sha256": file.sha256.hex(),
            "content_sha256": file.content_sha256.hex(),
        }
        for file in files
    ]
    text = json.dumps(
        {"month": f"{month:%Y-%m}", "database": store.database.name, "files": listed}, indent=1, ensure_ascii=False
    )
    store.archive.put(f"{store.database.name}/{month:%Y-%m}/manifest.json", text.encode() + b"\n")


def _record(connection: psycopg.Connection, files: Sequence[ArchivedFile], run_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO archived_files (month, table_name, symbol, "interval", strategy_id, path, rows, first_open,
                                           last_open, bytes, sha256, content_sha256, run_id)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (f.month, f.table, f.symbol, f.interval, f.strategy_id, f.path, f.rows, f.first_open, f.last_open,
                 f.size, f.sha256, f.content_sha256, run_id)
                for f in files
            ],
        )  # fmt: skip


def _drop(connection: psycopg.Connection, month: date) -> None:
    """Drop the leaves, with several attempts while readers hold them; the exported files are kept meanwhile."""
    parents = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(table)) for table in MONTHLY)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
                connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(parents))
                connection.execute("SELECT drop_month(%s)", (month,))
                return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if attempt == _ATTEMPTS:
                raise NotArchivable(
                    f"{month:%Y-%m} could not be dropped: a session has been reading candles in one transaction for "
                    "long (pg_stat_activity shows it). Run `algobot retention` when it has ended."
                ) from None
            time.sleep(random.uniform(0.2, 0.5) * attempt)


def _import(store: Store, connection: psycopg.Connection, file: ArchivedFile) -> None:
    """Copy a file's rows back, and compare the stored rows with the archived ones."""
    frame = store.archive.read(file)
    if (frame.height, content_sha256(frame)) != (file.rows, file.content_sha256):
        raise ArchiveError(f"{store.archive.shown(file.path)} does not hold what was archived. Nothing was restored.")
    copy_in(connection, file.table, frame)
    del frame
    window = Window(file.table, file.month, next_month(file.month), file.symbol, file.interval, file.strategy_id)
    stored = _rows(connection, window, file.month)
    if (stored.height, content_sha256(stored)) != (file.rows, file.content_sha256):
        raise StoreError(
            f"What the database received differs from {store.archive.shown(file.path)}. Nothing was restored. Please "
            "report it with the versions of pgpq and psycopg."
        )
