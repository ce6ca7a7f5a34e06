"""Fetch candles of delivered contracts from the archive: REST forgets a dated contract after its delivery."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

import polars as pl

from algobot_assets.errors import BadCandles
from algobot_assets.feed.archive import Archive
from algobot_assets.feed.archive_files import ArchiveName, is_published
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.source import Fetched, market_of
from algobot_assets.schema.intervals import days_between, midnight, month_start, next_month
from algobot_assets.schema.symbols import delivery_of

_DAY = timedelta(days=1)
#: A contract is listed about half a year before its delivery.
_MONTHS_BACK = 15


class DeliveredContracts:
    """The archived candles of dated contracts that REST no longer lists."""

    def __init__(self, exchange: Exchange, archive: Archive) -> None:
        self._exchange = exchange
        self._archive = archive
        self._held: dict[str, bool] = {}
        self._first_opens: dict[tuple[str, str], datetime | None] = {}

    def holds(self, symbol: str) -> bool:
        """Return whether the symbol is a delivered contract that REST no longer lists."""
        delivery = delivery_of(symbol)
        if delivery is None:
            return False
        if not self._held.get(symbol, False):
            over = delivery <= self._exchange.known_through(symbol, "1d")
            self._held[symbol] = over and symbol not in self._exchange.symbols(market_of(symbol)[0])
        return self._held[symbol]

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """Return the open of the contract's first archived candle; None if no month of it is archived."""
        key = symbol, interval
        if key not in self._first_opens:
            self._first_opens[key] = self._search(symbol, interval)
        return self._first_opens[key]

    def _search(self, symbol: str, interval: str) -> datetime | None:
        """Go back month by month from the delivery to the last month that is archived, and read it."""
        delivery = delivery_of(symbol)
        assert delivery is not None, "only dated contracts are asked for"
        earliest: ArchiveName | None = None
        month = month_start(delivery.date())
        for _ in range(_MONTHS_BACK):
            name = ArchiveName(symbol, interval, "monthly", month)
            if self._archive.checksum(name) is not None:
                earliest = name
            elif earliest is not None:
                break
            month = month_start(month - _DAY)
        answer = self._archive.read(earliest) if earliest else None
        if answer is None or answer.frame.is_empty():
            return None
        first: datetime = answer.frame["timestamp"][0]
        return first

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """Yield the archived candles that open in [lo, hi), a stretch per file; see `Source.fetch`. They end before
        the first day that is not archived."""
        first = self.first_open(symbol, interval)
        lo = max(lo, first) if first else lo
        while lo < hi:
            stop = min(hi, midnight(next_month(lo.date())))
            for part in self._month(symbol, interval, lo, stop):
                if part.lo > lo:
                    return
                end = min(part.hi, stop)
                frame = part.frame.filter(pl.col("timestamp").is_between(lo, end, closed="left"))
                yield Fetched(frame, part.origin, lo, end, part.notes)
                lo = end
            if lo < stop:
                return

    def _month(self, symbol: str, interval: str, lo: datetime, stop: datetime) -> Iterator[Fetched]:
        """Yield the files of a month that can be used: the monthly one, else the daily ones."""
        notes: tuple[str, ...] = ()
        try:
            whole = self._archive.read(ArchiveName(symbol, interval, "monthly", month_start(lo.date())))
        except BadCandles as error:
            whole, notes = None, (f"{error} Its candles were taken from daily archives.",)
        if whole is not None:
            yield whole
            return
        days: list[date] = days_between(lo.date(), (stop - timedelta(microseconds=1)).date() + _DAY)
        names = [ArchiveName(symbol, interval, "daily", day) for day in days] if is_published(interval, "daily") else []
        for _, answer in self._archive.read_all(names):
            if isinstance(answer, BadCandles):
                raise answer
            if answer is None:
                return
            yield Fetched(answer.frame, answer.origin, answer.lo, answer.hi, (*notes, *answer.notes))
            notes = ()
