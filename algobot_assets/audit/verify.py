"""Recompute stored tables without writing, and compare them with the database bit by bit.

Each table is recomputed by the code that fills it, from stored candles and recomputed state. Rows, digests and carried
states must equal the stored ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from algobot_assets.pipeline.computed_tables import COMPUTED
from algobot_assets.pipeline.skipped import by_cause
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.pipeline.steps.run import RunOptions, TableRun, upstream_of
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import days_between
from algobot_assets.schema.windows import Window, canonical_order, content_columns
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import NOTHING, day_digests, state_digest
from algobot_assets.store.reader import query, read_window
from algobot_assets.store.writer import row_days

#: The key of a window in lineage, and one of its days.
_Day = tuple[tuple[str, str, str, int], date]


@dataclass(frozen=True)
class Finding:
    """The result for one table: number of days and rows compared, and the first difference as a message, or None."""

    table: str
    days: int
    rows: int
    difference: str | None


def verify(store: Store, first: date, last: date) -> Iterator[Finding]:
    """Verify the digests of candles, then each computed table, for the days first to last (both included)."""
    end = last + timedelta(days=1)
    yield _stored_candles(store, first, end)
    for table in COMPUTED:
        yield _recomputed(store, table, first, end)


def _stored_candles(store: Store, first: date, end: date) -> Finding:
    """Compare the stored candles with the digests recorded when they were written."""
    days = rows = 0
    for window in Table(store, "market_data", first, end).recorded():
        for part in window.pieces():
            frame = read_window(store, part)
            outputs = day_digests(frame, content_columns("market_data"), row_days(part, frame))
            with store.transaction() as connection:
                recorded = lineage.read(connection, part)
            rows += frame.height
            for day in days_between(part.first, part.end):
                if day not in recorded:
                    if day in outputs:
                        text = f"{part.of(day, day + timedelta(days=1))}: rows without lineage"
                        return Finding("market_data", days, rows, text)
                    continue
                days += 1
                if recorded[day].output != outputs.get(day, (0, NOTHING))[1]:
                    text = f"{part.of(day, day + timedelta(days=1))}: the rows are not those that were recorded"
                    return Finding("market_data", days, rows, text)
    return Finding("market_data", days, rows, None)


def _recomputed(store: Store, table: str, first: date, end: date) -> Finding:
    body = COMPUTED[table]
    log = logging.getLogger("algobot.verify")
    run = TableRun(table, store, first, end, log, RunOptions(recompute=True))
    inputs = {name: Table(store, name, first, end) for name in upstream_of(body)}
    days = rows = 0
    seen: set[_Day] = set()
    try:
        for item in body(run, **inputs):
            rows += item.frame.height
            days += len(item.days)
            seen |= {(item.window.key, day.day) for day in item.days}
            difference = _difference(store, item)
            if difference is not None:
                return Finding(table, days, rows, difference)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # only rows changed by hand cause this, such as invalid parameters of a strategy
        said = f"{table} cannot be computed from what is stored ({type(error).__name__}: {error})"
        return Finding(table, days, rows, said)
    # a skipped day is a difference only if rows of it are stored
    unexplained = _unseen(store, table, first, end, seen)
    return Finding(table, days, rows, by_cause(run.skipped)[0] if unexplained and run.skipped else unexplained)


def _unseen(store: Store, table: str, first: date, end: date, seen: set[_Day]) -> str | None:
    """Describe the first recorded day that was not recomputed."""
    for window in Table(store, table, first, end).recorded():
        with store.transaction() as connection:
            recorded = lineage.read(connection, window)
        for day in sorted(recorded):
            if (window.key, day) not in seen:
                return f"{window.of(day, day + timedelta(days=1))}: recorded, but no longer computable"
    return None


def _difference(store: Store, item: WindowFrame) -> str | None:
    """Describe the first difference between computed and stored rows, digests or states of a window."""
    window = item.window
    names = list(item.frame.columns)
    # trades that close in the same candle share their figures; only their keys differ
    order = list(dict.fromkeys([*canonical_order(window.table), *_keys(window)]))
    stored = _stored(store, window).select(names).sort(order)
    computed = item.frame.sort(order)
    if not stored.equals(computed, null_equal=True) or _bits(stored) != _bits(computed):
        return _first_row(window, stored, computed)
    outputs = day_digests(computed, content_columns(window.table), row_days(window, computed))
    with store.transaction() as connection:
        recorded = lineage.read(connection, window)
    for day in item.days:
        known = recorded.get(day.day)
        where = window.of(day.day, day.day + timedelta(days=1))
        if known is None:
            return f"{where}: not stored"
        if known.output != outputs.get(day.day, (0, NOTHING))[1]:
            return f"{where}: the recorded digest differs"
        if state_digest(known.state_out) != state_digest(day.state_out):
            return f"{where}: the carried state differs"
    return None


def _keys(window: Window) -> list[str]:
    """Return the columns that identify a row of a frame: of a trade's metrics, those of the trade."""
    rule = window.rule
    return list(rule.linked_by if set(rule.natural_key) <= set(rule.links) else rule.natural_key)


def _stored(store: Store, window: Window) -> pl.DataFrame:
    """Return the stored rows with the columns of a frame."""
    stored = read_window(store, window)
    if window.rule.linked_table != "trade_history":
        return stored
    # the trade may be stored under another day than its metrics, if one of them was changed by hand
    trades = query(
        store,
        "SELECT id AS trade_id, strategy_id, entry_time FROM trade_history WHERE strategy_id = %s",
        (window.strategy_id,),
        {"entry_time": UTC},
    )
    return stored.join(trades, on="trade_id", how="left")


def _bits(frame: pl.DataFrame) -> list[bytes]:
    """Return the float columns as bytes: 0.0 equals -0.0, but their bits differ."""
    return [column.fill_null(0.0).to_numpy().tobytes() for column in frame if column.dtype == pl.Float64]


def _first_row(window: Window, stored: pl.DataFrame, computed: pl.DataFrame) -> str:
    key = _keys(window)
    both = stored.with_columns(pl.lit(True).alias("_s")).join(
        computed.with_columns(pl.lit(True).alias("_c")), on=key, how="full", coalesce=True, suffix=" computed"
    )
    for row in both.sort(key).iter_rows(named=True):
        where = ", ".join(str(row[name]) for name in key)
        if row["_s"] is None:
            return f"{window}: the row of {where} is missing"
        if row["_c"] is None:
            return f"{window}: the row of {where} should not be there"
        for name in stored.columns:
            if name not in key and row[name] != row[f"{name} computed"]:
                return f"{window}: {name} of {where} is {row[name]!s}, and should be {row[f'{name} computed']!s}"
    return f"{window}: a float differs in its last bits"
