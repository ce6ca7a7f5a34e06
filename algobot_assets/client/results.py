"""What the client answers with (a frame and how old its data is, or one decision), and the times it is given.

No database here.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl

from algobot_assets.errors import WindowError
from algobot_assets.schema.intervals import candle_end

#: A time, in UTC where it names no zone; a date is its midnight, a text is ISO 8601; None is no bound.
When = datetime | date | str | None


@dataclass(frozen=True, repr=False)
class Answer:
    """A frame, and how old the newest data of its table and market or strategy was when it was read.

    ``newest``, UTC: of candles, indicators and signals the end of the newest stored candle, whatever range
    was asked for; of the ledger the time up to which it is computed; of declared state when a version was
    last stored. Of two tables the one further behind counts, of several strategies the one furthest behind among
    those in force. None where nothing is stored. ``as_of``, UTC: when it was read, by the database's clock.
    """

    frame: pl.DataFrame
    newest: datetime | None
    as_of: datetime

    @property
    def age(self) -> timedelta | None:
        """Age of the newest data, never below zero; None where nothing is stored."""
        return None if self.newest is None else max(self.as_of - self.newest, timedelta(0))

    def __len__(self) -> int:
        return self.frame.height

    def __str__(self) -> str:
        if self.newest is None:
            return f"nothing is stored as of {self.as_of:%Y-%m-%d %H:%M:%S} UTC"
        age = timedelta(seconds=round(self.age.total_seconds()))
        return f"newest data of {self.newest:%Y-%m-%d %H:%M:%S} UTC, {age} old"

    def __repr__(self) -> str:
        return f"{self.frame!r}\n{self}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"{self.frame._repr_html_()}<p>{html.escape(str(self))}</p>"


@dataclass(frozen=True)
class LatestSignal:
    """The newest stored decision of one strategy version.

    ``signal``: 1 buy, -1 sell, 0 hold. ``decided_at``: open of the deciding candle, as in signals;
    ``known_at``: its end, before which nobody could know. ``price``: its close, quote asset. ``as_of``: when
    it was read, by the database's clock. Times are UTC.
    """

    strategy: str
    version: int
    symbol: str
    interval: str
    signal: int
    decided_at: datetime
    known_at: datetime
    price: Decimal
    as_of: datetime

    @property
    def age(self) -> timedelta:
        """Time since the decision could be known, never below zero."""
        return max(self.as_of - self.known_at, timedelta(0))

    @property
    def stale(self) -> bool:
        """True when a later candle has closed by the clock: the signal is then not the newest there could be.

        So it is while the platform is behind, after an outage of the exchange, and for a retired strategy.
        """
        return self.as_of >= candle_end(self.interval, self.known_at)


def instant(value: When, name: str) -> datetime | None:
    """The time in UTC, None for None. WindowError, with ``name`` in it, where the value is no time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise WindowError(
                f"{name} is {value!r}, which is no time: write it as 2024-01-31 or 2024-01-31T12:00:00+00:00."
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise WindowError(f"{name} is {value!r}: give a datetime, a date, or a text such as 2024-01-31.")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def time_range(start: When, end: When) -> tuple[datetime | None, datetime | None]:
    """Both ends of a half-open range in UTC. WindowError where it ends before it starts."""
    lo, hi = instant(start, "start"), instant(end, "end")
    if lo is not None and hi is not None and hi < lo:
        raise WindowError(f"The range ends ({hi:%Y-%m-%d %H:%M}) before it starts ({lo:%Y-%m-%d %H:%M}): swap them.")
    return lo, hi
