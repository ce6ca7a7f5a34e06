"""Define the windows of each table: which rows belong to one, and which keys identify a row.

One transaction writes one window: one table, one market or strategy, a run of days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import opens_window, piece_end


@dataclass(frozen=True)
class Windowing:
    """The way one table is divided into windows.

    time          the column that places a row in a day: "timestamp" (a candle's open), "day" or "effective_from"
    scope         the columns that hold a window's market or strategy
    natural_key   the columns that identify a row
    links         surrogate keys into other tables; they are not part of a row's content
    linked_table  the table that the link leads to, and
    linked_by     the columns by which the database finds the row there; frames carry these, never a link
    """

    time: str
    scope: tuple[str, ...]
    natural_key: tuple[str, ...]
    links: tuple[str, ...] = ()
    linked_table: str = ""
    linked_by: tuple[str, ...] = ()


_MARKET = ("symbol", "interval")
_TO_CANDLE = (("market_data_id",), "market_data", (*_MARKET, "timestamp"))
WINDOWING: dict[str, Windowing] = {
    "market_data": Windowing("timestamp", _MARKET, (*_MARKET, "timestamp")),
    "indicators": Windowing("timestamp", _MARKET, (*_MARKET, "timestamp"), *_TO_CANDLE),
    "signals": Windowing("timestamp", (*_MARKET, "strategy_id"), (*_MARKET, "strategy_id", "timestamp"), *_TO_CANDLE),
    "trade_history": Windowing("day", ("strategy_id",), ("strategy_id", "entry_time")),
    # the strategy of a metrics row is that of its trade
    "performance_metrics": Windowing(
        "day", (), ("trade_id",), ("trade_id",), "trade_history", ("strategy_id", "entry_time")
    ),
    "backtest_results": Windowing("day", ("strategy_id",), ("strategy_id", "day")),
    "configurations": Windowing("effective_from", (), ("config_name", "effective_from")),
    "strategies": Windowing("effective_from", (), ("strategy_name", "effective_from")),
    "risk_parameters": Windowing("effective_from", (), ("strategy_id", "effective_from")),
}


@dataclass(frozen=True)
class Window:
    """One table, one market or strategy, the days [first, end).

    ``symbol`` and ``interval`` are empty for reference tables; ``strategy_id`` is 0 if the table has none. ``phase`` is
    the listing's phase of 3d candles (intervals.py). Two windows of one table overlap only if market, strategy and days
    do.
    """

    table: str
    first: date
    end: date
    symbol: str = ""
    interval: str = ""
    strategy_id: int = 0
    phase: int | None = None

    @property
    def rule(self) -> Windowing:
        """The rule that divides the window's table."""
        return WINDOWING[self.table]

    @property
    def bounds(self) -> tuple[date, date] | tuple[datetime, datetime]:
        """The half-open range of the rule's time column."""
        if self.rule.time == "timestamp":
            return opens_window(self.interval, self.first, self.end, self.phase)
        return self.first, self.end

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The window's key in lineage, without the day."""
        return self.table, self.symbol, self.interval, self.strategy_id

    def of(self, first: date, end: date) -> Window:
        """Return the window of the same market or strategy over other days."""
        return Window(self.table, first, end, self.symbol, self.interval, self.strategy_id, self.phase)

    def in_table(self, table: str, strategy_id: int = 0) -> Window:
        """Return the window of the same market and days in another table."""
        return Window(table, self.first, self.end, self.symbol, self.interval, strategy_id, self.phase)

    def pieces(self) -> Iterator[Window]:
        """Yield the parts that are read and written at once; see intervals.piece_end."""
        first = self.first
        while first < self.end:
            end = min(self.end, piece_end(self.interval, first))
            yield self.of(first, end)
            first = end

    def __str__(self) -> str:
        market = f" of {self.symbol} {self.interval}" if self.symbol else ""
        strategy = f" (strategy {self.strategy_id})" if self.strategy_id else ""
        last = self.end.toordinal() - 1
        days = f"{self.first}" if last == self.first.toordinal() else f"{self.first} to {date.fromordinal(last)}"
        return f"{self.table}{market}{strategy}, {days}"


def frame_schema(table: str) -> dict[str, pl.DataType]:
    """Return the columns and dtypes of the table's frames: those of its rows, with natural keys instead of links."""
    rule = WINDOWING[table]
    columns = {name: dtype for name, dtype in schema_of(table).items() if name not in rule.links}
    return columns | {name: schema_of(rule.linked_table)[name] for name in rule.linked_by if name not in columns}


def canonical_order(table: str) -> list[str]:
    """Return the columns that order a window's rows, so that equal content has equal digests.

    A surrogate key is not content: a table that only such a key identifies is ordered by its content.
    """
    rule = WINDOWING[table]
    keys = [c for c in rule.natural_key if c != rule.time and c not in rule.scope and c not in rule.links]
    if set(rule.natural_key) <= set(rule.links):
        keys = [c for c in content_columns(table) if c != rule.time]
    return [rule.time, *keys]


def content_columns(table: str) -> list[str]:
    """Return the columns of a row's content, as Binance or a computation gave it, without surrogate keys.

    Columns that are constant in a window (its market or strategy) are omitted too. An output digest covers the rest, so
    equal digests in two databases mean equal tables.
    """
    rule = WINDOWING[table]
    return [c for c in schema_of(table) if c not in rule.links and c not in rule.scope]
