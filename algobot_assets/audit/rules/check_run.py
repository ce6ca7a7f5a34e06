"""Give the checks of one table the days and stored rows of a run, and collect their findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl
from psycopg import sql

from algobot_assets.pipeline.table import Table
from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import LENGTH_MS
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store

DAY = timedelta(days=1)
#: Pieces of a table that are counted in parallel.
_COUNTED_TOGETHER = 2


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
    """The checks of one table in one run over the days [first, end), with their findings by check."""

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
        return Table(self.store, table or self.table, self.first, self.end)

    def rows(
        self, statement: sql.SQL | sql.Composed | str, parameters: Sequence[Any], schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame:
        """Return the rows of a query as a frame."""
        rows = self.store.retrying(
            lambda connection: connection.execute(statement, parameters).fetchall(), f"Checking {self.table}"
        )
        return pl.DataFrame(rows, schema=dict(schema), orient="row")

    def recorded(self) -> Iterator[tuple[Window, pl.DataFrame]]:
        """Yield each market or strategy that has recorded days in the run, with these days (see ``days``)."""
        for window in self.handle().recorded():
            yield window, self.days(window)

    def days(self, window: Window) -> pl.DataFrame:
        """Return day, rows and complete_through of the recorded days of ``window``, ascending."""
        return self.rows(
            """SELECT day, rows, complete_through FROM lineage
                WHERE table_name = %s AND symbol = %s AND "interval" = %s AND strategy_id = %s
                  AND day >= %s AND day < %s ORDER BY day""",
            (*window.key, window.first, window.end),
            {"day": pl.Date(), "rows": pl.Int64(), "complete_through": UTC},
        )

    def per_day(self, window: Window, **columns: str) -> pl.DataFrame:
        """Return day, rows, links (the sum of the candles' ids) and ``columns`` of each day that has rows.

        ``columns`` are SQL aggregates: integers, or times if the name ends in _at. The server counts piece by piece.
        """
        link = "id" if window.table == "market_data" else "market_data_id"
        more = "".join(f", {expression}" for expression in columns.values())
        strategy = " AND strategy_id = %s" if window.strategy_id else ""
        query = f"""SELECT {day_sql(window.interval, window.phase)} AS day, count(*), sum({link}){more}
                      FROM {window.table} WHERE symbol = %s AND "interval" = %s{strategy}
                       AND "timestamp" >= %s AND "timestamp" < %s GROUP BY 1 ORDER BY 1"""
        schema: dict[str, pl.DataType] = {"day": pl.Date(), "rows": pl.Int64(), "links": pl.Decimal(38, 0)}
        schema |= {name: UTC if name.endswith("_at") else pl.Int64() for name in columns}
        who = (window.symbol, window.interval, *([window.strategy_id] if window.strategy_id else []))
        with ThreadPoolExecutor(_COUNTED_TOGETHER) as pool:
            return pl.concat(pool.map(lambda part: self.rows(query, (*who, *part.bounds), schema), window.pieces()))


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
