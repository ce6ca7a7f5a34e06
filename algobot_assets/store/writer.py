"""Write one window of a table in a single transaction.

In this order: take a lock per table and month, ascending; skip the days whose digest is recorded; write each run of
other days (merge.py), so that ids stay and a repeat writes nothing; record lineage; commit. A killed run leaves each
window old or new, never half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl
import psycopg

from algobot_assets.errors import ArchivedError, StoreError
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import consecutive, day_of, months_between
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window, canonical_order, content_columns
from algobot_assets.store import archive, lineage
from algobot_assets.store.advisory_locks import describe_holder, lock_months
from algobot_assets.store.connection import Store
from algobot_assets.store.digests import NOTHING, day_digests
from algobot_assets.store.lineage import DayInputs, DayLineage
from algobot_assets.store.merge import write_stretch
from algobot_assets.store.month_partitions import ensure_months

DayDigests = Mapping[date, tuple[int, bytes]]
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Written:
    """Row counts of one written window."""

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
    before_commit: Callable[[psycopg.Connection], None] | None = None,
    digests: DayDigests | None = None,
) -> Written:
    """Make the stored rows of the window's ``days`` equal to ``frame``, in one transaction with their lineage.

    ``frame`` has the columns and dtypes of ``schema_of(window.table)`` and only rows of those days; days without
    rows are emptied. ``before_commit`` runs in the same transaction, before lineage is recorded. ``digests``: the
    frame's ``day_digests``, if the caller has them. If the frame does not fit the window or the database refuses,
    StoreError is raised and nothing changes; ArchivedError if rows of an archived month would change.
    """
    frame = _fit(window, frame)
    day_by_row = row_days(window, frame)
    wanted = {day.day: day for day in days}
    strays = set(day_by_row.unique().to_list()) - set(wanted)
    if strays:
        raise StoreError(f"{window}: the frame has rows of {min(strays)}, outside its days. Nothing was written.")
    outputs = day_digests(frame, content_columns(window.table), day_by_row) if digests is None else digests

    def work(connection: psycopg.Connection) -> Written:
        archived = _lock(connection, window)
        recorded = lineage.read(connection, window)
        differing = _differing_days(wanted, recorded, outputs)
        _refuse_archived_days(window, differing, archived)
        inserted = updated = deleted = 0
        if differing or any(day.damaged for day in recorded.values()):
            connection.execute("SELECT set_config('algobot.writing', %s, true)", (window.table,))
        for run in consecutive(differing):
            part = window.of(run[0], run[-1] + _DAY)
            rows = frame.filter(day_by_row.is_between(run[0], run[-1]))
            counts = write_stretch(connection, part, rows)
            inserted, updated, deleted = (a + b for a, b in zip((inserted, updated, deleted), counts, strict=True))
            lineage.clear_dirty(connection, part)
        if before_commit is not None and (differing or not archived):  # an archived month stays as it is
            before_commit(connection)
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
        ensure_months(store, months_of(window))  # on its own: until it commits, writers of other months wait
    try:
        return store.retrying(work, f"Writing {window}")
    except StoreError as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            holder = describe_holder(store, window.table, months_of(window))
            raise StoreError(f"{window} was not written: {holder} Run it again then.") from error
        raise


def refuse_archived(
    connection: psycopg.Connection, window: Window, frame: pl.DataFrame, days: Sequence[DayInputs]
) -> None:
    """Raise ArchivedError if ``write_window`` would; one query if no month is archived."""
    if window.table not in MONTHLY:
        return
    archived = archive.archived_months(connection, months_of(window))
    if archived:
        frame = _fit(window, frame)
        outputs = day_digests(frame, content_columns(window.table), row_days(window, frame))
        recorded = lineage.read(connection, window)
        _refuse_archived_days(window, _differing_days([day.day for day in days], recorded, outputs), archived)


def row_days(window: Window, frame: pl.DataFrame) -> pl.Series:
    """Return the day (Date) to which each row of the window's table belongs."""
    if window.rule.time == "timestamp":
        return frame.select(day_of(window.interval, window.phase).alias("day"))["day"]
    return frame[window.rule.time].alias("day")


def months_of(window: Window) -> list[date]:
    """Return the months, ascending, whose partitions can hold the window's rows."""
    lo, hi = window.bounds
    if isinstance(lo, datetime) and isinstance(hi, datetime):
        return months_between(lo.date(), (hi - timedelta(microseconds=1)).date() + _DAY)
    return months_between(lo, hi)


def opens_in(window: Window, day: date, month: date) -> bool:
    """Return whether the candles of ``day``, if it has any, open in ``month``."""
    lo, hi = window.of(day, day + _DAY).bounds
    return lo < hi and (lo.year, lo.month) == (month.year, month.month)


def _fit(window: Window, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame's columns and rows in canonical order; StoreError if columns or dtypes are not the table's."""
    schema = schema_of(window.table)
    missing = [name for name in schema if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in schema]
    if missing or unknown:
        named = (("missing", missing), ("unknown", unknown))
        text = "; ".join(f"{kind} columns {', '.join(names)}" for kind, names in named if names)
        raise StoreError(f"The frame for {window} cannot be written: {text}.")
    wrong = {name: frame.schema[name] for name, dtype in schema.items() if frame.schema[name] != dtype}
    if wrong:
        text = "; ".join(f"{name} is {is_}, must be {schema[name]}" for name, is_ in wrong.items())
        raise StoreError(f"The frame for {window} cannot be written: {text}.")
    return frame.select(*schema).sort(canonical_order(window.table), maintain_order=True)


def _lock(connection: psycopg.Connection, window: Window) -> list[date]:
    """Lock the window's months and return those of them that are archived."""
    months = months_of(window)
    lock_months(connection, window.table, months)
    if window.table not in MONTHLY:
        return []
    return archive.archived_months(connection, months)


def _differing_days(
    wanted: Iterable[date], recorded: Mapping[date, DayLineage], outputs: Mapping[date, tuple[int, bytes]]
) -> list[date]:
    """Return the days whose rows differ from lineage."""
    return [
        day
        for day in sorted(wanted)
        if day not in recorded or recorded[day].dirty or recorded[day].output != outputs.get(day, (0, NOTHING))[1]
    ]


def _refuse_archived_days(window: Window, days: Sequence[date], archived: Sequence[date]) -> None:
    """Raise ArchivedError if one of ``days`` has its candles in an archived month."""
    if not archived:
        return
    concerned = {day: month for day in days for month in archived if opens_in(window, day, month)}
    if concerned:
        first, last = min(concerned), max(concerned)
        raise ArchivedError(
            f"{window.of(first, last + _DAY)}: the month is archived, so its rows cannot be changed. "
            f"Bring it back first: {archive.restore_command(concerned.values())}."
        )
