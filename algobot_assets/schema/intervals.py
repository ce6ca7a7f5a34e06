"""Calendar arithmetic of Binance's kline intervals: lengths, grids, and the UTC day to which a candle belongs.

Reads, writes, checks, locks, lineage and archive all map days to candle opens with these functions.

A candle belongs to the UTC day of its nominal last millisecond: its open floored to the interval's grid, plus
the interval, minus 1 ms. Published close times cannot be used for this: around outages they are early or odd.
The grids: up to 1d whole multiples since 1970-01-01; 3d with the phase of the listing (days since 1970-01-01
modulo 3 of its first candle); 1w Mondays; 1M calendar months.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import polars as pl

#: The first partition of every table: Binance opened in July 2017. A constant, because keys must not move.
FIRST_DAY = date(2017, 7, 1)

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
DAY_MS = 24 * _HOUR
#: Milliseconds of each interval; None for the calendar month.
LENGTH_MS: dict[str, int | None] = {
    "1s": 1_000,
    "1m": _MINUTE,
    "3m": 3 * _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": _HOUR,
    "2h": 2 * _HOUR,
    "4h": 4 * _HOUR,
    "6h": 6 * _HOUR,
    "8h": 8 * _HOUR,
    "12h": 12 * _HOUR,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
    "1M": None,
}
INTERVALS = tuple(LENGTH_MS)
_EPOCH = date(1970, 1, 1)
_MONDAY_PHASE = 4  # 1970-01-05 was the first Monday


def interval_ms(interval: str) -> int | None:
    """Return the length of ``interval`` in milliseconds; None for 1M, whose length varies. KeyError if unknown."""
    return LENGTH_MS[interval]


def is_intraday(interval: str) -> bool:
    """Return True for intervals shorter than a day: their grids restart at every UTC midnight."""
    length = LENGTH_MS[interval]
    return length is not None and length < DAY_MS


def midnight(day: date) -> datetime:
    """Return 00:00 UTC of ``day``."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def month_start(day: date) -> date:
    """Return the first day of the month of ``day``."""
    return day.replace(day=1)


def next_month(day: date) -> date:
    """Return the first day of the month after that of ``day``."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def days_between(first: date, end: date) -> list[date]:
    """Return the days of the half-open range [first, end)."""
    return [first + timedelta(days=i) for i in range((end - first).days)]


def months_between(first: date, end: date) -> list[date]:
    """Return the first days of the months that the half-open day range [first, end) touches, ascending."""
    months = []
    month = month_start(first)
    while month < end:
        months.append(month)
        month = next_month(month)
    return months


def piece_end(interval: str, day: date) -> date:
    """Return the exclusive end of the days that are computed and written at once from ``day`` on.

    It is the end of the calendar month, or of the calendar year for intervals of 1h and longer, of which a year has
    fewer candles than a month of 5m. ``interval`` can be empty: a month.
    """
    length = LENGTH_MS[interval] if interval else 0
    is_long = length is None or length >= _HOUR
    return date(day.year + 1, 1, 1) if is_long else next_month(day)


def pieces(interval: str, days: Iterable[date]) -> list[list[date]]:
    """Return the days, ascending, as runs that end where `piece_end` says."""
    return [list(run) for _, run in groupby(days, lambda day: piece_end(interval, day))]


def consecutive(days: Iterable[date]) -> list[list[date]]:
    """Return the days in ascending order, as runs without a gap."""
    runs = groupby(enumerate(sorted(days)), lambda item: item[1].toordinal() - item[0])
    return [[day for _, day in run] for _, run in runs]


def phase_of(first_open: datetime) -> int:
    """Return the 3d phase of a listing whose first candle opens at ``first_open``."""
    return (first_open.date() - _EPOCH).days % 3


def _grid_days(interval: str, phase: int | None) -> tuple[int, int]:
    if interval == "1w":
        return 7, _MONDAY_PHASE
    if phase is None:
        raise ValueError("a 3d window needs the phase of the market's first candle")
    return 3, phase


def opens_window(interval: str, first_day: date, end_day: date, phase: int | None = None) -> tuple[datetime, datetime]:
    """Return the half-open range of candle opens that belong to the days [first_day, end_day).

    Consecutive day ranges give consecutive open ranges, so every candle is in exactly one day. A day on which no candle
    of a 3d, 1w or 1M market ends gives an empty range (both ends equal).
    """
    if end_day < first_day:
        raise ValueError(f"the window ends ({end_day}) before it starts ({first_day})")
    if interval == "1M":
        return midnight(month_start(first_day)), midnight(month_start(end_day))
    length = LENGTH_MS[interval]
    assert length is not None
    if length <= DAY_MS:
        return midnight(first_day), midnight(end_day)
    step, offset = _grid_days(interval, phase)

    def first_open(day: date) -> datetime:
        """Return the first grid point whose candle ends on or after ``day``."""
        earliest = (day - _EPOCH).days - step + 1
        return midnight(_EPOCH + timedelta(days=earliest + (offset - earliest) % step))

    return first_open(first_day), first_open(end_day)


def floor_open(interval: str, phase: int | None = None, column: str = "timestamp") -> pl.Expr:
    """Return the expression of the open floored to the interval's grid, Datetime[us, UTC]."""
    opened = pl.col(column)
    if interval == "1M":
        return opened.dt.truncate("1mo")
    length = LENGTH_MS[interval]
    assert length is not None
    if length <= DAY_MS:
        step_us, offset_us = length * 1000, 0
    else:
        step, offset = _grid_days(interval, phase)
        step_us, offset_us = step * DAY_MS * 1000, offset * DAY_MS * 1000
    micros = opened.dt.epoch("us") - offset_us
    return ((micros // step_us) * step_us + offset_us).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def end_of(interval: str, phase: int | None = None, column: str = "timestamp") -> pl.Expr:
    """Return the expression of the candle's exclusive end (floored open plus interval), Datetime[us, UTC]."""
    floored = floor_open(interval, phase, column)
    if interval == "1M":
        return floored.dt.offset_by("1mo")
    length = LENGTH_MS[interval]
    return floored + pl.duration(milliseconds=length)


def day_of(interval: str, phase: int | None = None, column: str = "timestamp") -> pl.Expr:
    """Return the expression of the UTC day to which the candle opening at ``column`` belongs, Date."""
    length = LENGTH_MS[interval]
    if length is not None and length <= DAY_MS:
        return pl.col(column).dt.date()
    return (end_of(interval, phase, column) - pl.duration(milliseconds=1)).dt.date()


def candle_end(interval: str, opened: datetime) -> datetime:
    """Return the exclusive end of the candle that opens at ``opened`` on the grid."""
    if interval == "1M":
        return midnight(next_month(opened.date()))
    length = LENGTH_MS[interval]
    assert length is not None
    return opened + timedelta(milliseconds=length)


def expected_opens(interval: str, lo: datetime, hi: datetime, phase: int | None = None) -> pl.Series:
    """Return every grid point in [lo, hi), ascending: the candles of a market without gaps."""
    dtype = pl.Datetime("us", "UTC")
    if hi <= lo:
        return pl.Series("timestamp", [], dtype=dtype)
    if interval == "1M":
        months = [midnight(m) for m in months_between(lo.date(), hi.date() + timedelta(days=1))]
        return pl.Series("timestamp", [m for m in months if lo <= m < hi], dtype=dtype)
    length = LENGTH_MS[interval]
    assert length is not None
    offset = 0 if length <= DAY_MS else _grid_days(interval, phase)[1] * DAY_MS
    lo_ms = round(lo.timestamp() * 1000)
    hi_ms = round(hi.timestamp() * 1000)
    first = lo_ms + (offset - lo_ms) % length
    opens = pl.int_range(first, max(first, hi_ms), length, dtype=pl.Int64, eager=True)
    return pl.Series("timestamp", opens, dtype=pl.Int64).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").cast(dtype)
