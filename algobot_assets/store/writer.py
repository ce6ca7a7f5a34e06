"""Write windows of one table, many in a single transaction.

In this order: lock the months, ascending; skip the days whose digest is recorded; write the other days (merge.py), so
that ids stay and a repeat writes nothing; record lineage; commit. A killed run leaves each window old or new, never
half. A window that cannot be written is skipped and reported; the others are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg

from algobot_assets.errors import AlgobotError, ArchivedError, StoreError
from algobot_assets.schema.intervals import consecutive, day_of, months_between
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import WINDOWING, Window, canonical_order, content_columns, frame_schema
from algobot_assets.store import archive
from algobot_assets.store.advisory_locks import describe_holder, keep_candles, keep_strategies, lock_months
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import NOTHING, day_digests
from algobot_assets.store.lineage.recorded import read_windows
from algobot_assets.store.lineage.records import DayInputs, DayLineage, Key
from algobot_assets.store.merge import Counts, RefusedStretches, Stretch, write_stretches
from algobot_assets.store.month_partitions import ensure_months

DayDigests = Mapping[date, tuple[int, bytes]]
Recorded = Mapping[date, DayLineage]
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Record:
    """Rows of further tables that belong to a window: ``store`` writes the payloads of a batch in its transaction."""

    store: Callable[[psycopg.Connection, Sequence[Any]], None]
    payload: Any


@dataclass(frozen=True)
class WindowFrame:
    """The rows of one window, with the inputs of each of its days; days without rows are emptied.

    ``frame`` has the columns and dtypes of ``frame_schema(window.table)``. Days of the window that are missing in
    ``days`` are not touched. ``digests``: number of rows and digest of each day, if they are known already.
    """

    window: Window
    frame: pl.DataFrame
    days: Sequence[DayInputs]
    records: Sequence[Record] = ()
    digests: DayDigests | None = None


@dataclass
class Written:
    """Row counts of a batch, and the errors of the windows that were skipped, by their position."""

    rows: int = 0
    counts: Counts = field(default_factory=Counts)
    errors: dict[int, AlgobotError] = field(default_factory=dict)

    @property
    def inserted(self) -> int:
        """Rows inserted."""
        return self.counts.inserted

    @property
    def updated(self) -> int:
        """Rows updated."""
        return self.counts.updated

    @property
    def deleted(self) -> int:
        """Rows deleted."""
        return self.counts.deleted

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
    """Make the stored rows of one window's ``days`` equal to ``frame``, in one transaction with their lineage.

    ``before_commit`` runs in the same transaction. If the frame does not fit the window or the database refuses,
    StoreError is raised and nothing changes; ArchivedError if rows of an archived month would change.
    """
    records = [] if before_commit is None else [Record(lambda connection, _: before_commit(connection), None)]
    written = write_windows(store, [WindowFrame(window, frame, days, records, digests)])
    for error in written.errors.values():
        raise error
    return written


def write_windows(store: Store, items: Sequence[WindowFrame]) -> Written:
    """Make the stored rows of windows of one table equal to their frames, in one transaction with their lineage.

    A window that does not fit, that the database refuses, or that would change an archived month is skipped, with its
    error in the result. StoreError if the batch as a whole cannot be written; then nothing has changed.
    """
    written = Written()
    todo: dict[int, _Prepared] = {}
    for position, item in enumerate(items):
        try:
            todo[position] = _Prepared.of(item)
        except StoreError as error:
            written.errors[position] = error
    table = items[0].window.table
    if table in MONTHLY and todo:
        months = {month for item in todo.values() for month in months_of(item.window)}
        ensure_months(store, months)  # on its own: until it commits, writers of other months wait
    _write(store, table, todo, written)
    return written


@dataclass(frozen=True)
class _Prepared:
    """One window's rows in canonical order, with the day of each row, and the digest of each day."""

    window: Window
    frame: pl.DataFrame
    row_days: pl.Series
    wanted: Mapping[date, DayInputs]
    outputs: DayDigests
    records: Sequence[Record]

    @classmethod
    def of(cls, item: WindowFrame) -> _Prepared:
        frame = _fit(item.window, item.frame)
        days = row_days(item.window, frame)
        wanted = {day.day: day for day in item.days}
        strays = set(days.unique().to_list()) - set(wanted)
        if strays:
            raise StoreError(
                f"{item.window}: the frame has rows of {min(strays)}, outside its days. Nothing was written."
            )
        outputs = item.digests
        if outputs is None:
            outputs = day_digests(frame, content_columns(item.window.table), days)
        return cls(item.window, frame, days, wanted, outputs, item.records)

    def stretches(self, differing: Sequence[date], recorded: Recorded) -> list[Stretch]:
        """Return the rows to write: the runs of differing days, and of a day that has grown only its new rows."""
        stretches = []
        for run in consecutive(differing):
            lo, hi = self.window.of(run[0], run[-1] + _DAY).bounds
            rows = self.frame.filter(self.row_days.is_between(run[0], run[-1]))
            known = self._stored_head(run[0], rows, recorded)
            if known:
                rows = rows[known:]
                lo = rows["timestamp"][0]
            stretches.append(Stretch(self.window.of(run[0], run[-1] + _DAY), rows, lo, hi))
        return stretches

    def _stored_head(self, day: date, rows: pl.DataFrame, recorded: Recorded) -> int:
        """Return how many of the first rows are stored already, because the day has only grown; 0 if it was changed."""
        before = recorded.get(day)
        if self.window.rule.time != "timestamp" or before is None or before.dirty or not before.rows:
            return 0
        if self.outputs.get(day, (0, NOTHING))[0] <= before.rows:
            return 0
        head = rows[: before.rows]
        of_day = pl.Series([day], dtype=pl.Date).new_from_index(0, head.height)
        known = day_digests(head, content_columns(self.window.table), of_day)
        return before.rows if known[day][1] == before.output else 0


def _write(store: Store, table: str, todo: Mapping[int, _Prepared], written: Written) -> None:
    """Write the windows in one transaction; if some are refused, the others in one or more further transactions."""
    left = dict(todo)
    while left:
        try:
            rows, counts, archived = store.retrying(
                lambda connection: _write_batch(connection, store.run_id, table, left), f"Writing {_subject(left)}"
            )
        except RefusedStretches as refused:
            positions = list(left)
            for n, reason in refused.reasons.items():
                written.errors[positions[n]] = StoreError(reason)
                del left[positions[n]]
            continue
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.errors.LockNotAvailable):
                months = sorted({month for item in left.values() for month in months_of(item.window)})
                holder = describe_holder(store, table, months)
                raise StoreError(f"{_subject(left)} was not written: {holder} Run it again then.") from error
            if not isinstance(cause, psycopg.DataError | psycopg.IntegrityError):
                raise
            if len(left) == 1:
                written.errors[next(iter(left))] = error
                return
            # one of them holds a value that the database refuses: halve until it is found
            positions = list(left)
            middle = len(positions) // 2
            for half in (positions[:middle], positions[middle:]):
                _write(store, table, {position: left[position] for position in half}, written)
            return
        written.rows += rows
        written.counts += counts
        written.errors.update(archived)
        return


def _subject(items: Mapping[int, _Prepared]) -> str:
    first = next(iter(items.values())).window
    return f"{first}" if len(items) == 1 else f"{first} and {len(items) - 1} more"


def _write_batch(
    connection: psycopg.Connection, run_id: str, table: str, items: Mapping[int, _Prepared]
) -> tuple[int, Counts, dict[int, AlgobotError]]:
    """Write the windows; return their number of rows, what changed, and the windows that archived months refuse."""
    archived = _lock(connection, table, list(items.values()))
    recorded_by_key = read_windows(connection, [item.window for item in items.values()])
    refused: dict[int, AlgobotError] = {}
    stretches: list[Stretch] = []
    owners: list[int] = []
    differing_by_item: dict[int, list[date]] = {}
    for number, (position, item) in enumerate(items.items()):
        recorded: Recorded = recorded_by_key.get(item.window.key, {})
        differing = _differing_days(item.wanted, recorded, item.outputs)
        try:
            _refuse_archived_days(item.window, differing, archived)
        except ArchivedError as error:
            refused[position] = error
            continue
        differing_by_item[position] = differing
        found = item.stretches(differing, recorded)
        stretches += found
        owners += [number] * len(found)
    damaged = any(day.damaged for recorded in recorded_by_key.values() for day in recorded.values())
    if stretches or damaged:
        connection.execute("SELECT set_config('algobot.writing', %s, true)", (table,))
    counts = Counts()
    if stretches:
        try:
            counts = write_stretches(connection, table, stretches)
        except RefusedStretches as error:
            raise RefusedStretches({owners[n]: reason for n, reason in error.reasons.items()}) from None
        lineage.clear_dirty(connection, [stretch.window for stretch in stretches])
    kept = {position: items[position] for position in differing_by_item}
    _store_records(connection, [i for p, i in kept.items() if differing_by_item[p] or not archived])
    _record(connection, run_id, kept, differing_by_item, recorded_by_key)
    return sum(item.frame.height for item in kept.values()), counts, refused


def _store_records(connection: psycopg.Connection, items: Sequence[_Prepared]) -> None:
    """Store the further records of the windows, together for each kind."""
    payloads: dict[Callable[[psycopg.Connection, Sequence[Any]], None], list[Any]] = {}
    for item in items:
        for record in item.records:
            payloads.setdefault(record.store, []).append(record.payload)
    for store, payload in payloads.items():
        store(connection, payload)


def _record(
    connection: psycopg.Connection,
    run_id: str,
    items: Mapping[int, _Prepared],
    differing: Mapping[int, Sequence[date]],
    recorded_by_key: Mapping[Key, Recorded],
) -> None:
    """Record the lineage of the days whose rows or inputs differ from what is recorded."""
    days = []
    new = True
    for position, item in items.items():
        recorded: Recorded = recorded_by_key.get(item.window.key, {})
        changed = set(differing[position])
        new = new and not any(day in recorded for day in item.wanted)
        days += [
            (item.window.key, day, *item.outputs.get(day.day, (0, NOTHING)))
            for day in item.wanted.values()
            if day.day in changed or not recorded[day.day].same_inputs(day)
        ]
    lineage.write(connection, days, run_id, new=new)


def refuse_archived(
    connection: psycopg.Connection, window: Window, frame: pl.DataFrame, days: Sequence[DayInputs]
) -> None:
    """Raise ArchivedError if ``write_window`` would; one query if no month is archived."""
    if window.table not in MONTHLY:
        return
    archived = archive.archived_months(connection, months_of(window))
    if archived:
        item = _Prepared.of(WindowFrame(window, frame, days))
        recorded: Recorded = read_windows(connection, [window]).get(window.key, {})
        _refuse_archived_days(window, _differing_days(item.wanted, recorded, item.outputs), archived)


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
    """Return the frame's columns and rows in canonical order; StoreError if columns or dtypes are not the table's.

    Links are dropped: the database finds them.
    """
    schema = frame_schema(window.table)
    frame = frame.drop(window.rule.links, strict=False)
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


def _lock(connection: psycopg.Connection, table: str, items: Sequence[_Prepared]) -> list[date]:
    """Lock the windows' months, and what their rows lead to; return the archived ones of the months."""
    months = sorted({month for item in items for month in months_of(item.window)})
    lock_months(connection, table, months)
    if WINDOWING[table].linked_table == "market_data":
        keep_candles(connection, months)
    if table == "signals":
        keep_strategies(connection, sorted({item.window.strategy_id for item in items}))
    if table not in MONTHLY:
        return []
    return archive.archived_months(connection, months)


def _differing_days(wanted: Iterable[date], recorded: Recorded, outputs: DayDigests) -> list[date]:
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
