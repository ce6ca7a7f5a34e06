"""Read a stored table as the input of the next one, window by window and on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property

import polars as pl

from algobot_assets.errors import StoreError, WindowError
from algobot_assets.pipeline.steps.frames import Frames, WindowFrame
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import day_of, days_between, interval_ms, midnight, phase_of
from algobot_assets.schema.windows import WINDOWING, Window
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.records import DayInputs, DayLineage
from algobot_assets.store.reader import read_table, read_window


@dataclass(frozen=True)
class Table:
    """A stored table as an asset's input: the run's days [first, end), read on demand.

    ``frame`` and ``lazy`` return all of it, ``read`` one window. For reference tables that is the rows that became
    effective within the days, and for each name the latest before them.
    """

    store: Store
    name: str
    first: date
    end: date
    _cache: dict[str, object] = field(default_factory=dict, compare=False, repr=False)

    def window(
        self,
        first: date | None = None,
        end: date | None = None,
        symbol: str = "",
        interval: str = "",
        strategy_id: int = 0,
    ) -> Window:
        """Return a window of this table; days default to the run's."""
        phase = self.phases.get(symbol) if interval and (interval_ms(interval) or 0) == 3 * 86_400_000 else None
        return Window(self.name, first or self.first, end or self.end, symbol, interval, strategy_id, phase)

    @cached_property
    def phases(self) -> dict[str, int]:
        """The phase of each symbol's 3d candles, by its recorded listing."""
        if "phases" not in self._cache:
            with self.store.transaction() as connection:
                rows = connection.execute("""SELECT symbol, first_open FROM listings WHERE "interval" = '3d'""")
                self._cache["phases"] = {symbol: phase_of(opened) for symbol, opened in rows}
        return self._cache["phases"]  # type: ignore[return-value]

    def recorded(self) -> list[Window]:
        """Return one window per market or strategy that has a recorded day among the run's, ascending."""
        with self.store.transaction() as connection:
            rows = connection.execute(
                """SELECT DISTINCT symbol, "interval", strategy_id FROM lineage
                    WHERE table_name = %s AND day >= %s AND day < %s ORDER BY 1, 2, 3""",
                (self.name, self.first, self.end),
            ).fetchall()
        return [self.window(symbol=s, interval=i, strategy_id=k) for s, i, k in rows]

    def lineage(self, window: Window) -> dict[date, DayLineage]:
        """Return the recorded days of ``window``."""
        with self.store.transaction() as connection:
            return lineage.read(connection, window)

    def first_day(self, window: Window) -> date | None:
        """Return the earliest recorded day of the window's market or strategy."""
        with self.store.transaction() as connection:
            return lineage.first_day(connection, window)

    def last_complete(self, window: Window) -> date | None:
        """Return the last day of ``window`` that is complete and whose carried state is undamaged."""
        recorded = self.lineage(window)
        return max((day for day, item in recorded.items() if item.is_complete and not item.damaged), default=None)

    def read(self, window: Window, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows of one window, ascending; ``columns`` default to all but the generated ones."""
        return read_window(self.store, window, columns)

    def frame(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return all rows of the run's days as one frame. WindowError if nothing was materialised for them."""
        if WINDOWING[self.name].time == "effective_from":
            return self.versions().select(columns or list(schema_of(self.name)))
        windows = self._required()
        return pl.concat([self.read(window, columns) for window in windows])

    def lazy(self) -> pl.LazyFrame:
        """Return the rows of ``frame`` as a LazyFrame that reads only the columns used, one market at a time."""
        if WINDOWING[self.name].time == "effective_from":
            return self.frame().lazy()
        windows = self._required()

        def source(
            columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch: int | None
        ) -> Iterator[pl.DataFrame]:
            left = n_rows
            for window in windows:
                needed = columns
                if predicate is not None and columns is not None:
                    needed = list(dict.fromkeys([*columns, *predicate.meta.root_names()]))
                part = self.read(window, needed)
                if predicate is not None:
                    part = part.filter(predicate)
                if columns is not None:
                    part = part.select(columns)
                if left is not None:
                    part = part.head(left)
                    left -= part.height
                yield part
                if left == 0:
                    return

        return pl.io.plugins.register_io_source(source, schema=schema_of(self.name))

    def _required(self) -> list[Window]:
        windows = self.recorded()
        if not windows:
            last = self.end - timedelta(days=1)
            days = f"{self.first}" if last == self.first else f"{self.first} to {last}"
            raise WindowError(
                f"{self.name} has nothing for {days}: materialise {self.name} for these days first, or select "
                "it together with the assets that follow from it."
            )
        return windows

    def versions(self, *, history: bool = False) -> pl.DataFrame:
        """Return rows of a reference table with their id: those within the days plus the latest before them per name.

        ``history``: return every stored version instead.
        """
        name = {"configurations": "config_name", "strategies": "strategy_name", "risk_parameters": "strategy_id"}
        rows = read_table(self.store, self.name, "effective_from", "id")
        if history:
            return rows
        rows = rows.filter(pl.col("effective_from") < self.end)
        earlier = pl.col("effective_from") < self.first
        latest = pl.col("effective_from") == pl.col("effective_from").filter(earlier).max().over(name[self.name])
        return rows.filter(~earlier | latest)


def split(store: Store, table: str, first: date, end: date, frame: pl.DataFrame) -> Frames:
    """Split a plain frame into windows that replace all rows of the days [first, end).

    Markets or strategies that are stored for those days but absent from the frame are emptied. Raises StoreError
    if columns are missing or rows lie outside the days.
    """
    rule = WINDOWING[table]
    missing = [name for name in (*rule.scope, rule.time) if name not in frame.columns]
    if missing:
        raise StoreError(f"The frame for {table} cannot be written: its columns lack {', '.join(missing)}.")
    handle = Table(store, table, first, end)
    scopes = {tuple(row) for row in frame.select(rule.scope).unique().iter_rows()} if rule.scope else {()}
    scopes |= {tuple(getattr(w, name) for name in rule.scope) for w in handle.recorded()}

    def windows() -> Iterator[WindowFrame]:
        for values in sorted(scopes):
            keys = dict(zip(rule.scope, values, strict=True))
            rows = frame.filter([pl.col(name) == value for name, value in keys.items()]) if keys else frame
            whole = handle.window(**keys)
            if rule.time == "timestamp":
                days = rows.select(day_of(whole.interval, whole.phase).alias("day"))["day"]
            else:
                days = rows[rule.time]
            strays = days.filter(~days.is_between(first, end, closed="left"))
            if len(strays):
                raise StoreError(
                    f"The frame for {whole} cannot be written: it has rows of {strays[0]}, outside of the run's days."
                )
            for part in whole.pieces():
                inside = rows.filter(days.is_between(part.first, part.end, closed="left"))
                ends = days_between(part.first, part.end)
                yield WindowFrame(part, inside, [DayInputs(d, midnight(d + timedelta(days=1))) for d in ends])

    return Frames(windows())
