"""What all checks have in common: the run's days, the markets recorded for them, sentences, and the way to Dagster.

A check op is not partitioned, so a range run gives one evaluation per check. Large tables are looked at on the server
or month by month; what is right and wrong is said in the rules_* modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl
from psycopg import sql

from algobot_assets.resources import DatabaseResource
from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import LENGTH_MS, months_between, next_month
from algobot_assets.schema.windows import Window
from algobot_assets.store.archive import archived_months
from algobot_assets.store.connection import Store
from algobot_assets.windows import Table

DAY = timedelta(days=1)
#: A candle opens at most this many days before its day, but for 1M, which ends with its month.
_REACH = timedelta(days=6)
#: Days looked at where a check is executed by itself, without a partition: the newest recorded ones.
NEWEST_DAYS = 31
#: Pieces of a table counted at the same time.
_COUNTED_TOGETHER = 2
#: Sentences shown per check; the number of all is in the metadata.
_SHOWN = 20


@dataclass
class Findings:
    """The sentences of one check, and how many things it looked at."""

    sentences: list[str] = field(default_factory=list)
    seen: int = 0

    def add(self, sentences: Sequence[str] | str) -> None:
        """Add what was found."""
        self.sentences += [sentences] if isinstance(sentences, str) else sentences


@dataclass
class CheckRun:
    """One table's checks in one run: the days [first, end), the tables as handles, findings by check."""

    table: str
    store: Store
    first: date
    end: date
    checks: InitVar[Iterable[str]]
    findings: dict[str, Findings] = field(init=False)

    def __post_init__(self, checks: Iterable[str]) -> None:
        self.findings = {name: Findings() for name in checks}

    def handle(self, table: str | None = None) -> Table:
        """A stored table over the run's days; default the checked one."""
        return Table(self.store, table or self.table, self.first, self.end)

    def rows(
        self, statement: sql.Composable | str, parameters: Sequence[Any], schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame:
        """The rows of a query as a frame."""
        rows = self.store.retrying(
            lambda connection: connection.execute(statement, parameters).fetchall(), f"Checking {self.table}"
        )
        return pl.DataFrame(rows, schema=dict(schema), orient="row")

    def recorded(self) -> Iterator[tuple[Window, pl.DataFrame]]:
        """Each market or strategy with recorded days among the run's, and those days (see ``days``)."""
        for window in self.handle().recorded():
            yield window, self.days(window)

    def days(self, window: Window) -> pl.DataFrame:
        """day, rows and complete_through of the recorded days of ``window``, ascending."""
        return self.rows(
            """SELECT day, rows, complete_through FROM lineage
                WHERE table_name = %s AND symbol = %s AND "interval" = %s AND strategy_id = %s
                  AND day >= %s AND day < %s ORDER BY day""",
            (*window.key, window.first, window.end),
            {"day": pl.Date(), "rows": pl.Int64(), "complete_through": UTC},
        )

    def per_day(self, window: Window, **columns: str) -> pl.DataFrame:
        """day, rows, links (the sum of the candles' ids) and ``columns`` (SQL aggregates: whole numbers, or times
        where the name ends in _at) of each day that has rows; counted on the server, piece by piece."""
        link = "id" if window.table == "market_data" else "market_data_id"
        more = "".join(f", {expression}" for expression in columns.values())
        strategy = " AND strategy_id = %s" if window.strategy_id else ""
        query = f"""SELECT {day_sql(window.interval, window.phase)} AS day, count(*), sum({link})::bigint{more}
                      FROM {window.table} WHERE symbol = %s AND "interval" = %s{strategy}
                       AND "timestamp" >= %s AND "timestamp" < %s GROUP BY 1 ORDER BY 1"""
        schema = {"day": pl.Date(), "rows": pl.Int64(), "links": pl.Int64()}
        schema |= {name: UTC if name.endswith("_at") else pl.Int64() for name in columns}
        who = (window.symbol, window.interval, *([window.strategy_id] if window.strategy_id else []))
        with ThreadPoolExecutor(_COUNTED_TOGETHER) as pool:
            return pl.concat(pool.map(lambda part: self.rows(query, (*who, *part.bounds), schema), window.pieces()))


def slot_sql(interval: str, phase: int | None, column: str = '"timestamp"') -> str:
    """SQL: the grid point at or before a time, as schema.intervals.floor_open."""
    length = LENGTH_MS[interval]
    if length is None:
        return f"date_trunc('month', {column})"
    origin = "1970-01-05" if interval == "1w" else f"1970-01-{1 + (phase or 0):02d}"
    return f"date_bin('{length} milliseconds', {column}, '{origin} 00:00+00')"


def day_sql(interval: str, phase: int | None) -> str:
    """SQL: the day to which a candle belongs, as schema.intervals.day_of."""
    length = LENGTH_MS[interval]
    if length is not None and length <= 86_400_000:
        return '"timestamp"::date'  # the session is in UTC
    step = "1 month" if length is None else f"{length} milliseconds"
    return f"({slot_sql(interval, phase)} + interval '{step}' - interval '1 millisecond')::date"


Body = Callable[[CheckRun], None]


def look(body: Body, run: CheckRun) -> dict[str, Findings]:
    """What the checks of one table find in the run's days, by check."""
    body(run)
    return run.findings


def table_checks(
    table: str, checks: Mapping[str, str], blocking: Sequence[str] = ()
) -> Callable[[Body], dg.AssetChecksDefinition]:
    """Decorator: ``body(run)`` adds sentences to ``run.findings``; it becomes the checks of ``table``.

    ``checks``: descriptions by name. Those of ``blocking`` guard what everything computed from the table relies on:
    a failure ends the run before that is computed. The others leave the other markets alone.
    """
    specs = [
        dg.AssetCheckSpec(name, asset=table, description=text, blocking=name in blocking)
        for name, text in checks.items()
    ]

    def decorate(body: Body) -> dg.AssetChecksDefinition:
        def op(context: dg.AssetCheckExecutionContext, database: DatabaseResource) -> Iterator[dg.AssetCheckResult]:
            first, end = _run_days(context, database.store, table)
            first = _first_kept(database.store, first, end)
            days = f"{first} to {end - DAY}" if first < end else "archived"
            for name, found in look(body, CheckRun(table, database.store, first, end, checks)).items():
                shown = found.sentences[:_SHOWN]
                more = [f"And {len(found.sentences) - _SHOWN} more."] if len(found.sentences) > _SHOWN else []
                yield dg.AssetCheckResult(
                    check_name=name,
                    asset_key=table,
                    passed=not found.sentences,
                    severity=dg.AssetCheckSeverity.ERROR,
                    description="\n".join([*shown, *more]) or f"{days}: nothing found.",
                    metadata={"found": len(found.sentences), "looked at": found.seen, "days": days},
                )

        # Dagster reads this one before it resolves annotations
        op.__annotations__["context"] = dg.AssetCheckExecutionContext
        return dg.multi_asset_check(name=f"{table}_checks", specs=specs)(op)

    return decorate


def _first_kept(store: Store, first: date, end: date) -> date:
    """The first of the days from which on all candles are in the database, ``end`` where there is none.

    What is archived was looked at when it was written, and compared with its lineage when it left.
    """
    with store.transaction() as connection:
        months = archived_months(connection, months_between(first - _REACH, end))
    return min(end, max(first, next_month(months[-1]) + _REACH)) if months else first


def _run_days(context: dg.AssetCheckExecutionContext, store: Store, table: str) -> tuple[date, date]:
    """The run's days [first, end); without a partition the newest recorded ones."""
    if context.run.is_partitioned:
        keys = context.op_execution_context.partition_key_range
        return date.fromisoformat(keys.start), date.fromisoformat(keys.end) + DAY
    with store.transaction() as connection:
        newest = connection.execute("SELECT max(day) FROM lineage WHERE table_name = %s", (table,)).fetchone()[0]
    end = (newest or date(1970, 1, 1)) + DAY
    return end - timedelta(days=NEWEST_DAYS), end
