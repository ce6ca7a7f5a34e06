"""Results of the client (a frame with the age of its data, or one decision) and the times that it accepts."""

from __future__ import annotations

import html
import warnings
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl

from algobot_assets.errors import WindowError
from algobot_assets.schema.intervals import candle_end

#: A time, UTC unless it names a zone. A date means its midnight, a text is ISO 8601, None is no bound.
When = datetime | date | str | None


@dataclass(frozen=True, repr=False)
class QueryResult:
    """A Polars frame, together with how old the newest data of its table and market or strategy is.

    ``newest`` (UTC) does not depend on the range: for candles, indicators and signals it is the end of the newest
    stored candle; for the ledger, the time up to which it is computed; for declared state, when a version was last
    stored. Of two tables the one further behind counts; of several strategies, the one furthest behind among those
    in force. None if nothing is stored. ``as_of`` (UTC) is the database's clock when the frame was read.

    >>> newest = datetime(2024, 1, 1, 6, tzinfo=UTC)
    >>> print(QueryResult(pl.DataFrame(), newest, as_of=newest + timedelta(minutes=5)))
    newest data of 2024-01-01 06:00:00 UTC, 0:05:00 old
    """

    frame: pl.DataFrame
    newest: datetime | None
    as_of: datetime

    @property
    def age(self) -> timedelta | None:
        """Age of the newest data, never below zero; None if nothing is stored."""
        return None if self.newest is None else max(self.as_of - self.newest, timedelta(0))

    def __len__(self) -> int:
        return self.frame.height

    def __str__(self) -> str:
        if self.newest is None or self.age is None:
            return f"nothing is stored as of {self.as_of:%Y-%m-%d %H:%M:%S} UTC"
        age = timedelta(seconds=round(self.age.total_seconds()))
        return f"newest data of {self.newest:%Y-%m-%d %H:%M:%S} UTC, {age} old"

    def __repr__(self) -> str:
        return f"{self.frame!r}\n{self}"

    def _repr_html_(self) -> str:
        """Frame and age as HTML, for notebooks."""
        return f"{self.frame._repr_html_()}<p>{html.escape(str(self))}</p>"


@dataclass(frozen=True)
class LatestSignal:
    """The newest stored decision of one strategy version.

    ``signal``: 1 buy, -1 sell, 0 hold. ``decided_at``: open of the deciding candle, as in the table signals.
    ``known_at``: its end, the earliest time at which the decision could be known. ``price``: its close in the quote
    asset. ``as_of``: the database's clock when it was read. Times are UTC.
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
        """Time since the decision became known, never below zero."""
        return max(self.as_of - self.known_at, timedelta(0))

    @property
    def stale(self) -> bool:
        """Whether a later candle has closed by now, so that a newer decision should exist.

        True while the platform is behind, after an outage of the exchange, and for a retired strategy.
        """
        return self.as_of >= candle_end(self.interval, self.known_at)


def instant(value: When, name: str) -> datetime | None:
    """Convert a value to a time in UTC, None to None. Raise WindowError, which cites ``name``, if it is not a time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise WindowError(
                f"{name} is {value!r}, which is not a valid time. Use 2024-01-31 or 2024-01-31T12:00:00+00:00."
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise WindowError(f"{name} is {value!r}. Pass a datetime, a date, or a text such as 2024-01-31.")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def time_range(start: When, end: When) -> tuple[datetime | None, datetime | None]:
    """Convert both ends of a half-open range to UTC. Raise WindowError if it ends before it starts."""
    lo, hi = instant(start, "start"), instant(end, "end")
    if lo is not None and hi is not None and hi < lo:
        raise WindowError(f"The range ends ({hi:%Y-%m-%d %H:%M}) before it starts ({lo:%Y-%m-%d %H:%M}). Swap the two.")
    return lo, hi


def __getattr__(name: str) -> type[QueryResult]:
    """Keep the former name `Answer` importable for one version."""
    if name == "Answer":
        warnings.warn("Answer is now called QueryResult.", DeprecationWarning, stacklevel=2)
        return QueryResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
