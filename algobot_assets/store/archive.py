"""Write, read and list archived months: candles, indicators and signals moved from the database to Parquet files.

A file holds one market (and strategy) and month of one table, ids and stamps included, so reading a window touches,
and checks, only that market's files. retention/months.py moves months out and back.

A reader holds the table's lock (``hold``) from before it looks up the archived months until it has read the rest, so
that no month can be archived in between.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import ArchiveError
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.tables import MONTHLY


@dataclass(frozen=True)
class ArchivedFile:
    """One file: the rows of one table, market (and strategy, 0 for none) and month; ``path`` is below the place."""

    month: date
    table: str
    symbol: str
    interval: str
    strategy_id: int
    path: str
    rows: int
    first_open: datetime
    last_open: datetime
    size: int
    sha256: bytes
    content_sha256: bytes


def path_of(database: str, table: str, month: date, symbol: str, interval: str, strategy_id: int) -> str:
    """Return a file's path below the archive's place; 1M becomes 1mo, as some file systems confuse it with 1m."""
    strategy = f"_{strategy_id}" if strategy_id else ""
    return f"{database}/{month:%Y-%m}/{table}/{symbol}_{interval.replace('M', 'mo')}{strategy}.parquet"


class Archive:
    """The place of the archive: a folder, or any URL that fsspec knows. It is opened at the first use."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._opened: tuple[Any, str] | None = None

    def __repr__(self) -> str:
        return f"Archive({self.shown()!r})"

    def shown(self, path: str = "") -> str:
        """Return the place, or a file in it, for people: without a login."""
        place = re.sub(r"://[^/@]*@", "://", self.place)
        return f"{place}/{path}" if path else place

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec  # slow to import, and most readers never need it

            try:
                self._opened = fsspec.core.url_to_fs(self.place)
            except (ImportError, ValueError) as error:
                raise ArchiveError(
                    f"The archive {self.shown()} cannot be opened: {error} Install the named package, or "
                    "correct ALGOBOT_ARCHIVE."
                ) from None
        return self._opened

    def put(self, path: str, data: bytes) -> None:
        """Write a file atomically: either all of ``data`` is on disk, or the file is unchanged."""
        files, root = self._open()
        target = f"{root}/{path}"
        try:
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            if "file" in (files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)):
                _put_on_disk(target, data)
            else:
                files.pipe_file(target, data)
        except Exception as error:  # every kind of storage has errors of its own
            raise ArchiveError(
                f"{self.shown(path)} cannot be written: {type(error).__name__}: {error}. Make room, or correct "
                "ALGOBOT_ARCHIVE; nothing has left the database."
            ) from error

    def get(self, path: str, sha256: bytes) -> bytes:
        """Return the file's bytes; ArchiveError if it is missing, unreadable, or has another checksum."""
        files, root = self._open()
        copy = "put an undamaged copy in its place (`manifest.json` beside its folder has the checksums)"
        try:
            data: bytes = files.cat_file(f"{root}/{path}")
        except FileNotFoundError:
            raise ArchiveError(
                f"The archived file {self.shown(path)} is missing: {copy}, or set ALGOBOT_ARCHIVE to where "
                "the archive is now."
            ) from None
        except Exception as error:
            raise ArchiveError(
                f"The archived file {self.shown(path)} cannot be read: {type(error).__name__}: {error}. Run it again "
                "when the archive is reachable, or correct ALGOBOT_ARCHIVE."
            ) from error
        if hashlib.sha256(data).digest() != sha256:
            raise ArchiveError(
                f"The archived file {self.shown(path)} is damaged: its SHA-256 is not the recorded one. To "
                f"repair it, {copy}."
            )
        return data

    def read(self, file: ArchivedFile, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the file's rows in order of time; ``columns`` default to all of the table, generated ones included."""
        data = self.get(file.path, file.sha256)
        schema = schema_of(file.table, generated=True)
        names = list(columns or schema)
        return pl.read_parquet(io.BytesIO(data), columns=names, use_statistics=False).select(names)

    def rows(
        self,
        files: Sequence[ArchivedFile],
        table: str,
        lo: datetime | None,
        hi: datetime | None,
        columns: Sequence[str],
    ) -> pl.DataFrame:
        """Return the files' rows that open in [lo, hi), in the order of the files, with exactly ``columns``."""
        schema = schema_of(table, generated=True)
        needed = list(dict.fromkeys([*columns, "timestamp"]))
        opened = pl.col("timestamp")
        inside = pl.lit(True)
        if lo is not None:
            inside &= opened >= lo
        if hi is not None:
            inside &= opened < hi
        parts = [self.read(file, needed).filter(inside) for file in files]
        return pl.concat([pl.DataFrame(schema={name: schema[name] for name in needed}), *parts]).select(columns)


def _put_on_disk(target: str, data: bytes) -> None:
    """Write to a temporary file, flush, rename, flush the folders: no reader sees half a file."""
    beside = f"{target}.{os.getpid()}.part"
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    folder = target
    for _ in range(4):  # table, month, database, place: any of them may be new
        folder = os.path.dirname(folder)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- the list of archived files --------------------------------------------------------------------------------------


def hold(connection: psycopg.Connection, *tables: str) -> None:
    """Prevent months of ``tables`` from being archived until the transaction ends.

    It must be the transaction's first statement, so that it sees as archived exactly the months that the tables
    lack.
    """
    names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(name)) for name in MONTHLY if name in tables)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


def files_of(
    connection: psycopg.Connection,
    table: str,
    symbol: str,
    interval: str,
    lo: datetime | None = None,
    hi: datetime | None = None,
    strategies: Collection[int] = (0,),
) -> list[ArchivedFile]:
    """Return a market's files with opens in [lo, hi), ascending by month and strategy; None leaves a side open."""
    rows = connection.execute(
        """SELECT month, table_name, symbol, "interval", strategy_id, path, rows, first_open, last_open, bytes, sha256,
                  content_sha256
             FROM archived_files
            WHERE table_name = %s AND symbol = %s AND "interval" = %s AND strategy_id = ANY(%s)
              AND last_open >= coalesce(%s, '-infinity'::timestamptz)
              AND first_open < coalesce(%s, 'infinity'::timestamptz)
            ORDER BY month, strategy_id""",
        (table, symbol, interval, list(strategies), lo, hi),
    )
    return [_file(row) for row in rows]


def has_files(connection: psycopg.Connection, table: str, lo: datetime, hi: datetime) -> bool:
    """Return whether rows of ``table`` that open in [lo, hi) are archived."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM archived_files WHERE table_name = %s AND last_open >= %s AND first_open < %s)",
        (table, lo, hi),
    ).fetchone()
    return bool(row and row[0])


def files_of_month(connection: psycopg.Connection, month: date) -> list[ArchivedFile]:
    """Return all files of a month, candles first, because the other tables refer to them."""
    rows = connection.execute(
        """SELECT month, table_name, symbol, "interval", strategy_id, path, rows, first_open, last_open, bytes, sha256,
                  content_sha256
             FROM archived_files WHERE month = %s
            ORDER BY array_position(%s::text[], table_name::text), symbol, "interval", strategy_id""",
        (month, list(MONTHLY)),
    )
    return [_file(row) for row in rows]


def _file(row: Sequence[Any]) -> ArchivedFile:
    month, table, symbol, interval, strategy_id, path, rows, first, last, size, sha, content = row
    span = first.astimezone(UTC), last.astimezone(UTC)
    return ArchivedFile(
        month, table, symbol, interval, strategy_id, path, rows, *span, size, bytes(sha), bytes(content)
    )


def archived_months(connection: psycopg.Connection, among: Collection[date] | None = None) -> list[date]:
    """Return the first days of the archived months, ascending; with ``among`` only those of it."""
    rows = connection.execute(
        "SELECT DISTINCT month FROM archived_files WHERE %s::date[] IS NULL OR month = ANY(%s::date[]) ORDER BY 1",
        (among if among is None else list(among),) * 2,
    )
    return [row[0] for row in rows]


def restore_command(months: Collection[date]) -> str:
    """Return the command that restores the months from the first to the last of ``months``."""
    first, last = f"{min(months):%Y-%m}", f"{max(months):%Y-%m}"
    return f"`algobot restore {first}`" if first == last else f"`algobot restore {first} {last}`"
