"""Give the checks of one table the days and stored rows of a run, for all markets at once, and collect findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.pipeline.table import Table
from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import LENGTH_MS
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out

DAY = timedelta(days=1)
#: Statements that count rows in parallel, and rows that one of them counts at most (a single piece may have more).
_COUNTED_TOGETHER = 2
_COUNTED_ROWS = 2_000_000
_DAYS = {"day": pl.Date(), "rows": pl.Int64(), "complete_through": UTC}


@dataclass
class Findings:
    """The messages of one check, and the number of items it examined."""

    sentences: list[str] = field(default_factory=list)
    seen: int = 0

    def add(self, sentences: Sequence[str] | str) -> None:
        """Add messages."""
        self.sentences += [sentences] if isinstance(sentences, str) else sentences


@dataclass
class CheckRun:
    """The checks of one table in one run over the days [first, end), with their findings by check.

    The number of statements does not depend on the number of markets and strategies.
    """

    table: str
    store: Store
    first: date
    end: date
    checks: InitVar[Iterable[str]]
    findings: dict[str, Findings] = field(init=False)

    def __post_init__(self, checks: Iterable[str]) -> None:
        self.findings = {name: Findings() for name in checks}

    def handle(self, table: str | None = None) -> Table:
        """Return a stored table over the run's days, by default the checked one."""
        return self._handles.setdefault(
            table or self.table, Table(self.store, table or self.table, self.first, self.end)
        )

    @cached_property
    def _handles(self) -> dict[str, Table]:
        return {}

    def rows(
        self, statement: sql.SQL | sql.Composed | str, parameters: Sequence[Any], schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame:
        """Return the rows of a query as a frame."""
        rows = self.store.retrying(
            lambda connection: connection.execute(statement, parameters).fetchall(), f"Checking {self.table}"
        )
        return pl.DataFrame(rows, schema=dict(schema), orient="row")

    @cached_property
    def recorded(self) -> dict[Window, pl.DataFrame]:
        """The markets or strategies with recorded days in the run, each with day, rows and complete_through."""
        schema = {"symbol": pl.String(), "interval": pl.String(), "strategy_id": pl.Int64(), **_DAYS}

        def work(connection: psycopg.Connection) -> pl.DataFrame:
            statement = sql.SQL(
                """SELECT symbol, "interval", strategy_id, day, rows,
                          (date_part('epoch', complete_through) * 1000000)::bigint
                     FROM lineage WHERE table_name = %s AND day >= %s AND day < %s"""
            )
            return copy_out(connection, statement, (self.table, self.first, self.end), schema)

        found = self.store.retrying(work, f"Checking {self.table}").with_columns(
            pl.col("symbol", "interval").fill_null("")
        )
        handle = self.handle()
        keys = ("symbol", "interval", "strategy_id")
        parts = found.sort(*keys, "day").partition_by(keys, as_dict=True, include_key=False, maintain_order=True)
        return {handle.window(symbol=s, interval=i, strategy_id=k): days for (s, i, k), days in parts.items()}

    def candles(self, window: Window) -> Window:
        """Return the candles of the window's market over the run's days."""
        return self.handle("market_data").window(symbol=window.symbol, interval=window.interval)

    def per_day(self, windows: Iterable[Window], **columns: str) -> dict[Window, pl.DataFrame]:
        """Return, for each window, day, rows, links (the sum of the candles' ids) and ``columns`` of days with rows.

        ``windows`` are of one table. ``columns`` are SQL aggregates on its row t: integers, or times if the name ends
        in _at. The server counts, a bounded number of rows per statement.
        """
        schema: dict[str, pl.DataType] = {"n": pl.Int64(), "day": pl.Date(), "rows": pl.Int64()}
        schema |= {"links": pl.Decimal(38, 0)}
        schema |= {name: UTC if name.endswith("_at") else pl.Int64() for name in columns}
        numbered = list(dict.fromkeys(windows))
        batches = list(self._batches(numbered))

        def count(batch: Sequence[tuple[int, Window]]) -> pl.DataFrame:
            return self.rows(*_count(batch, columns), schema)

        with ThreadPoolExecutor(_COUNTED_TOGETHER) as pool:
            counted = pl.concat([pl.DataFrame(schema=schema), *pool.map(count, batches)]).sort("n", "day")
        parts = counted.partition_by("n", as_dict=True, include_key=False, maintain_order=True)
        none = counted.clear().drop("n")
        return {window: parts.get((n,), none) for n, window in enumerate(numbered)}

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[tuple[int, Window]]]:
        """Group the windows' pieces by interval and phase, with a bounded number of recorded rows each."""
        grids: dict[tuple[str, int | None], list[tuple[int, Window]]] = {}
        for n, window in enumerate(windows):
            grids.setdefault((window.interval, window.phase), []).extend((n, piece) for piece in window.pieces())
        for pieces in grids.values():
            batch: list[tuple[int, Window]] = []
            size = 0
            for n, piece in sorted(pieces, key=lambda item: item[1].first):
                rows = (piece.end - piece.first).days * 86_400_000 // (LENGTH_MS[piece.interval] or 31 * 86_400_000)
                if batch and size + rows > _COUNTED_ROWS:
                    yield batch
                    batch, size = [], 0
                batch.append((n, piece))
                size += rows
            yield batch

    def states(self, table: str, days: Mapping[int, date]) -> dict[int, np.ndarray]:
        """Return the carried state of each strategy at the end of its day; strategies without one are absent."""
        with self.store.transaction() as connection:
            rows = connection.execute(
                """SELECT l.strategy_id, l.state_out FROM unnest(%s::bigint[], %s::date[]) AS w (strategy_id, day)
                     JOIN lineage AS l USING (strategy_id, day)
                    WHERE l.table_name = %s AND l.state_out IS NOT NULL""",
                (list(days), list(days.values()), table),
            ).fetchall()
        return {strategy: np.array(state, dtype=np.float64) for strategy, state in rows}


def _count(batch: Sequence[tuple[int, Window]], columns: Mapping[str, str]) -> tuple[str, list[Any]]:
    """Return the statement that counts the rows of windows of one table, interval and phase, per window and day."""
    sample = batch[0][1]
    link = "id" if sample.table == "market_data" else "market_data_id"
    names = ["symbol", "interval", *(["strategy_id"] if sample.strategy_id else [])]
    kinds = ["int", "timestamptz", "timestamptz", *("bigint" if name == "strategy_id" else "varchar" for name in names)]
    source = ", ".join(f"%s::{kind}[]" for kind in kinds)
    more = "".join(f", {expression}" for expression in columns.values())
    quoted = ", ".join(f'"{name}"' for name in names)
    bounds = [window.bounds for _, window in batch]
    statement = f"""SELECT n, {day_sql(sample.interval, sample.phase)} AS day, count(*), sum({link}){more}
                      FROM unnest({source}) AS w (n, lo, hi, {quoted})
                      JOIN {sample.table} AS t USING ({quoted})
                     WHERE t."timestamp" >= w.lo AND t."timestamp" < w.hi
                       AND t."timestamp" >= %s AND t."timestamp" < %s GROUP BY 1, 2"""
    lows, highs = [lo for lo, _ in bounds], [hi for _, hi in bounds]
    scopes = [[getattr(window, name) for _, window in batch] for name in names]
    return statement, [[n for n, _ in batch], lows, highs, *scopes, min(lows), max(highs)]


def slot_sql(interval: str, phase: int | None, column: str = '"timestamp"') -> str:
    """Return SQL for the grid point at or before a time, as schema.intervals.floor_open computes it."""
    length = LENGTH_MS[interval]
    if length is None:
        return f"date_trunc('month', {column})"
    origin = "1970-01-05" if interval == "1w" else f"1970-01-{1 + (phase or 0):02d}"
    return f"date_bin('{length} milliseconds', {column}, '{origin} 00:00+00')"


def day_sql(interval: str, phase: int | None) -> str:
    """Return SQL for the day to which a candle belongs, as schema.intervals.day_of computes it."""
    length = LENGTH_MS[interval]
    if length is not None and length <= 86_400_000:
        return '"timestamp"::date'  # the session is in UTC
    step = "1 month" if length is None else f"{length} milliseconds"
    return f"({slot_sql(interval, phase)} + interval '{step}' - interval '1 millisecond')::date"
