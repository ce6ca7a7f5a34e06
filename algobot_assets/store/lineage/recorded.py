"""Read the recorded lineage of many markets and strategies with one statement, and look days up in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.schema.frames import UTC
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out
from algobot_assets.store.lineage.digests import state_digest
from algobot_assets.store.lineage.records import DayLineage, Key

_KEY = ("table_name", "symbol", "interval", "strategy_id")
#: Digests as hexadecimal text and states as PostgreSQL's text of an array: both are exact, and cheap to parse.
_SCHEMA: dict[str, pl.DataType] = {
    "table_name": pl.String(),
    "symbol": pl.String(),
    "interval": pl.String(),
    "strategy_id": pl.Int64(),
    "day": pl.Date(),
    "complete_through": UTC,
    "inputs": pl.String(),
    "parameters": pl.String(),
    "code_version": pl.String(),
    "state_in": pl.String(),
    "state_out": pl.String(),
    "state": pl.String(),
    "output": pl.String(),
    "rows": pl.Int64(),
    "dirty": pl.Boolean(),
}
_SELECT = sql.SQL(
    """SELECT l.table_name, l.symbol, l."interval", l.strategy_id, l.day,
              (date_part('epoch', l.complete_through) * 1000000)::bigint, encode(l.input_digest, 'hex'),
              encode(l.parameters_digest, 'hex'), l.code_version, encode(l.state_in, 'hex'), l.state_out::text,
              encode(l.state_digest, 'hex'), encode(l.output_digest, 'hex'), l.rows, d.day IS NOT NULL
         FROM lineage AS l LEFT JOIN dirty_days AS d USING (table_name, symbol, "interval", strategy_id, day)
        WHERE l.table_name = ANY(%s) AND l.day >= %s AND l.day < %s"""
)


class RecordedDays(Mapping[date, DayLineage]):
    """The recorded days of one market or strategy in one table, ascending.

    A day's record is built when it is first looked up.
    """

    def __init__(self, rows: pl.DataFrame) -> None:
        self._rows = rows
        self._found: dict[date, DayLineage] = {}

    @cached_property
    def _position(self) -> dict[date, int]:
        return {day: position for position, day in enumerate(self._rows["day"])}

    def __len__(self) -> int:
        return self._rows.height

    def __iter__(self) -> Iterator[date]:
        return iter(self._position)

    def __contains__(self, day: object) -> bool:
        return day in self._position

    def __getitem__(self, day: date) -> DayLineage:
        if day not in self._found:
            self._found[day] = _record(self._rows.row(self._position[day]))
        return self._found[day]

    def between(self, first: date, end: date) -> RecordedDays:
        """Return the days of [first, end)."""
        return RecordedDays(self._rows.filter(pl.col("day").is_between(first, end, closed="left")))

    @property
    def height(self) -> int:
        """The number of the table's rows on all days."""
        return int(self._rows["rows"].sum())


class Lineages:
    """The recorded days of some tables, for all their markets and strategies, over the days [first, end)."""

    def __init__(self, rows: pl.DataFrame, first: date, end: date) -> None:
        self.first, self.end = first, end
        rows = rows.with_columns(pl.col("symbol", "interval").fill_null(""))  # COPY sends the empty text as nothing
        self._by_key = rows.sort("day").partition_by(_KEY, as_dict=True, include_key=True, maintain_order=True)
        self._none = RecordedDays(rows.clear())

    @classmethod
    def read(
        cls,
        store: Store,
        tables: Sequence[str],
        first: date,
        end: date,
        symbols: Collection[str] = (),
        strategies: Collection[int] = (),
    ) -> Lineages:
        """Read with one statement. ``symbols`` and ``strategies``: only these; the other tables' keys are empty."""
        statement: sql.Composable = _SELECT
        parameters: list[Any] = [list(tables), first, end]
        if symbols or strategies:
            statement = _SELECT + sql.SQL(" AND (l.symbol = ANY(%s) OR (l.symbol = '' AND l.strategy_id = ANY(%s)))")
            parameters += [list(symbols), list(strategies)]

        def work(connection: psycopg.Connection) -> pl.DataFrame:
            return copy_out(connection, statement, parameters, _SCHEMA)

        return cls(store.retrying(work, f"Reading the lineage of {', '.join(tables)}"), first, end)

    def keys(self, table: str) -> list[Key]:
        """Return the keys that have a recorded day in ``table``, ascending."""
        return sorted(key for key in self._by_key if key[0] == table)

    def of(self, key: Key) -> RecordedDays:
        """Return all days that were read of one market or strategy."""
        return RecordedDays(self._by_key[key]) if key in self._by_key else self._none

    def days(self, window: Window) -> RecordedDays:
        """Return the recorded days of ``window``, which must lie within the days that were read."""
        return self.of(window.key).between(window.first, window.end)


def read_windows(connection: psycopg.Connection, windows: Sequence[Window]) -> dict[Key, RecordedDays]:
    """Return the recorded days of the windows, which are of one table, by key; a key without any is absent."""
    names = ("symbol", "interval", "strategy_id")
    statement = _SELECT + sql.SQL(
        """ AND (l.symbol, l."interval", l.strategy_id) IN (
                SELECT * FROM unnest(%s::varchar[], %s::varchar[], %s::bigint[]))"""
    )
    first, end = min(window.first for window in windows), max(window.end for window in windows)
    keys = [[getattr(window, name) for window in windows] for name in names]
    rows = copy_out(connection, statement, [[windows[0].table], first, end, *keys], _SCHEMA)
    found = Lineages(rows, first, end)
    return {key: found.of(key) for key in found.keys(windows[0].table)}


def first_days(store: Store, table: str, markets: Collection[tuple[str, str]]) -> dict[tuple[str, str], date]:
    """Return the first recorded day of each of ``markets`` in ``table``; a market without one is absent."""
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT m.symbol, m."interval",
                      (SELECT min(l.day) FROM lineage AS l
                        WHERE (l.table_name, l.symbol, l."interval", l.strategy_id)
                            = (%s, m.symbol, m."interval", 0))
                 FROM unnest(%s::varchar[], %s::varchar[]) AS m (symbol, "interval")""",
            (table, [symbol for symbol, _ in markets], [interval for _, interval in markets]),
        ).fetchall()
    return {(symbol, interval): day for symbol, interval, day in rows if day is not None}


def _record(row: tuple[Any, ...]) -> DayLineage:
    (*_, day, through, inputs, parameters, code, state_in, state_out, state, output, rows, dirty) = row
    numbers = None if state_out is None else np.array(state_out[1:-1].split(",") if state_out != "{}" else [], "f8")
    recorded = None if state is None else bytes.fromhex(state)
    return DayLineage(
        day,
        through,
        bytes.fromhex(inputs or ""),
        bytes.fromhex(parameters or ""),
        code or "",
        None if state_in is None else bytes.fromhex(state_in),
        numbers,
        bytes.fromhex(output or ""),
        rows,
        dirty,
        state_digest(numbers) != recorded,
    )
