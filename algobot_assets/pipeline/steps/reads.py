"""Read the rows that many markets need with one statement per table, unless this run has just computed them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.pipeline.steps.handed_on import handed_on
from algobot_assets.pipeline.steps.incremental import Rows
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.store import archive
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out, select_columns
from algobot_assets.store.lineage.recorded import Lineages
from algobot_assets.store.reader import read_window

_Group = tuple[str, tuple[str, ...], datetime, datetime]


class Reader:
    """The rows that the computations of one run read; those of a batch are held until the next batch is read."""

    def __init__(self, store: Store, recorded: Lineages, *, from_database: bool = False) -> None:
        """Prepare to read; ``from_database``: even what this process has just computed."""
        self._store, self._recorded, self._from_database = store, recorded, from_database
        self._held: dict[Rows, pl.DataFrame] = {}

    def height(self, rows: Rows) -> int:
        """Return the number of rows that lineage records for the window."""
        return self._recorded.days(rows.window).height

    def fetch(self, wanted: Iterable[Rows]) -> None:
        """Hold the rows of ``wanted`` and drop those of the batch before."""
        asked = dict.fromkeys(wanted)
        self._held = {rows: frame for rows, frame in self._held.items() if rows in asked}
        groups: dict[_Group, list[Rows]] = defaultdict(list)
        for rows in asked:
            if rows in self._held:
                continue
            known = self._handed_on(rows)
            if known is not None:
                self._held[rows] = known
            elif rows.window.table in MONTHLY:
                groups[(rows.window.table, rows.columns, *rows.window.bounds)].append(rows)  # type: ignore[index]
            else:
                self._held[rows] = read_window(self._store, rows.window, rows.columns)
        for group, members in groups.items():
            self._held |= self._read(group, members)

    def get(self, rows: Rows) -> pl.DataFrame:
        """Return the rows, ascending by time: those that are held, else read now."""
        if rows not in self._held:
            self._held[rows] = read_window(self._store, rows.window, rows.columns)
        return self._held[rows]

    def _handed_on(self, rows: Rows) -> pl.DataFrame | None:
        recorded = self._recorded.days(rows.window)
        if self._from_database or any(day.dirty for day in recorded.values()):
            return None
        found = handed_on(rows.window, {day: recorded[day].output for day in recorded})
        if found is None or not set(rows.columns) <= set(found.columns):
            return None
        return found.select(rows.columns)

    def _read(self, group: _Group, members: Sequence[Rows]) -> Mapping[Rows, pl.DataFrame]:
        table, columns, lo, hi = group
        if lo >= hi:
            schema = {name: schema_of(table, generated=True)[name] for name in columns}
            return {rows: pl.DataFrame(schema=schema) for rows in members}
        windows = [rows.window for rows in members]
        work = partial(_read_together, table=table, columns=columns, lo=lo, hi=hi, windows=windows)
        frames = self._store.retrying(work, f"Reading {table}")
        if frames is None:  # some of it is archived
            frames = {window.key: read_window(self._store, window, columns) for window in windows}
        return {rows: frames[rows.window.key] for rows in members}


def _read_together(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[str],
    lo: datetime,
    hi: datetime,
    windows: Sequence[Window],
) -> Mapping[tuple[str, str, str, int], pl.DataFrame] | None:
    """Read the windows' rows with opens in [lo, hi); None if a month of it is archived."""
    archive.hold(connection, table)
    if archive.has_files(connection, table, lo, hi):
        return None
    schema = schema_of(table, generated=True)
    keys = ("symbol", "interval", *(["strategy_id"] if table == "signals" else []))
    selected = {name: schema[name] for name in dict.fromkeys([*keys, "timestamp", *columns])}
    wanted = sql.SQL(", ").join(
        sql.SQL("%s::{}[]").format(sql.SQL("bigint" if name == "strategy_id" else "varchar")) for name in keys
    )
    statement = sql.SQL(
        "SELECT {columns} FROM {table} AS t JOIN unnest({wanted}) AS w ({keys}) USING ({keys}) "
        "WHERE t.{time} >= %s AND t.{time} < %s"
    ).format(
        columns=select_columns(selected, "t"),
        table=sql.Identifier(table),
        wanted=wanted,
        keys=sql.SQL(", ").join(map(sql.Identifier, keys)),
        time=sql.Identifier("timestamp"),
    )
    arrays = [[getattr(window, name) for window in windows] for name in keys]
    found = copy_out(connection, statement, [*arrays, lo, hi], selected).sort("timestamp", maintain_order=True)
    parts = found.partition_by(keys, as_dict=True, include_key=True, maintain_order=True)
    none = found.clear().select(columns)
    frames = {}
    for window in windows:
        part = parts.get(tuple(getattr(window, name) for name in keys))
        frames[window.key] = none if part is None else part.select(columns)
    return frames
