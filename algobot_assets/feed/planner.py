"""Choose between archive and REST for each stretch of an exchange's candles, and decide when a candle is absent.

- Whole past months come from monthly archives, longer stretches of whole past days from daily archives, the
  rest from REST: today, days whose archive is missing, corrupt or not published yet, anything that fits into three
  pages of REST, and all intervals from 1d on, of which one page holds years.
- An archive alone never proves that a candle does not exist: files have been published early and with gaps. Days with
  missing candles are fetched from REST instead, unless the archive has more of them. Only then are the candles that
  are still missing confirmed as absent.
- A monthly archive is sometimes complete and still wrong. Each of its days is compared with REST's 1d candle, which is
  the sum of its candles; a day that differs is fetched from REST instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

import polars as pl

from algobot_assets.errors import BadCandles
from algobot_assets.feed.archive import Archive
from algobot_assets.feed.archive_files import ArchiveName
from algobot_assets.feed.delivered import DeliveredContracts
from algobot_assets.feed.exchange import PAGE, Exchange
from algobot_assets.feed.source import Fetched, SymbolRules
from algobot_assets.schema.intervals import (
    days_between,
    expected_opens,
    floor_open,
    interval_ms,
    is_intraday,
    midnight,
    month_start,
    next_month,
)

_DAY = timedelta(days=1)
_FEW_PAGES = 3  # two days of minutes: the size of an everyday refresh


class ArchiveAndRest:
    """The archive and the REST API of one exchange as a single `Source`."""

    def __init__(self, exchange: Exchange, archive: Archive) -> None:
        self._exchange = exchange
        self._archive = archive
        self._days = _DayCandles(exchange)
        self._delivered = DeliveredContracts(exchange, archive)

    @property
    def name(self) -> str:
        """The REST API's name with a mention of its archive."""
        return f"{self._exchange.name} with its archive"

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()
        self._archive.close()

    def server_time(self) -> datetime:
        """Return the exchange's clock."""
        return self._exchange.server_time()

    def known_through(self, symbol: str, interval: str) -> datetime:
        """Return the exchange's clock as of at most a minute ago."""
        return self._exchange.known_through(symbol, interval)

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """Return the open of the market's first candle; None before its first trade."""
        contracts = self._delivered
        return (contracts if contracts.holds(symbol) else self._exchange).first_open(symbol, interval)

    def symbols(self, market: str = "spot") -> Sequence[str]:
        """Return every symbol of the market, whatever its status."""
        return self._exchange.symbols(market)

    def rules(self, symbol: str) -> SymbolRules | None:
        """Return today's trading rules of the symbol; None for a delivered contract, which no longer has any."""
        return None if self._delivered.holds(symbol) else self._exchange.rules(symbol)

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the checksums that the archive publishes now."""
        return self._archive.checksums(symbol, interval, files)

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """Yield the closed candles that open in [lo, hi), a stretch per origin and calendar month; see
        `Source.fetch`."""
        if self._delivered.holds(symbol):
            yield from self._delivered.fetch(symbol, interval, lo, hi)
            return
        now = self._exchange.known_through(symbol, interval)
        if self._exchange.closed_before(symbol, interval, now) < hi:
            now = self._exchange.server_time()
        end = min(hi, self._exchange.closed_before(symbol, interval, now))
        first = self._exchange.first_open(symbol, interval) if is_intraday(interval) else None
        listed = end if first is None else min(max(first, lo), end)
        # Before the listing, and for candles of a day and longer, a request or two to REST suffice.
        yield from self._exchange.fetch_closed(symbol, interval, lo, listed, now)
        lo = max(lo, listed)
        while lo < end:
            stop = min(end, midnight(next_month(lo.date())))
            month = _Month(self._exchange, self._archive, self._days, symbol, interval, now)
            yield from month.fetch(lo, stop, first)
            lo = stop


class _DayCandles:
    """REST's closed 1d candles, a page per symbol: one request serves years of months."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pages: dict[str, tuple[datetime, datetime, pl.DataFrame]] = {}

    def read(self, symbol: str, lo: datetime, hi: datetime, now: datetime) -> pl.DataFrame:
        """Return the 1d candles that open in [lo, hi)."""
        begin, end, page = self._pages.get(symbol, (hi, lo, None))
        if page is None or lo < begin or hi > end:
            begin, end = lo, max(hi, min(lo + PAGE * _DAY, midnight(now.date())))
            page = pl.concat([part.frame for part in self._exchange.fetch_closed(symbol, "1d", begin, end, now)])
            self._pages[symbol] = begin, end, page
        return page.filter(pl.col("timestamp").is_between(lo, hi, closed="left"))


class _Month:
    """The candles of one market within one calendar month, while they are collected."""

    def __init__(
        self, exchange: Exchange, archive: Archive, days: _DayCandles, symbol: str, interval: str, now: datetime
    ) -> None:
        self._exchange = exchange
        self._archive = archive
        self._day_candles = days
        self._symbol = symbol
        self._interval = interval
        self._now = now
        self._notes: list[str] = []

    def fetch(self, lo: datetime, hi: datetime, listing: datetime | None) -> Iterator[Fetched]:
        """Yield the candles that open in [lo, hi); ``listing`` is the open of the market's first candle."""
        month = month_start(lo.date())
        begin = max(midnight(month), listing) if listing else midnight(month)
        whole = lo <= begin and hi == midnight(next_month(month))
        parts: list[Fetched] = []
        doubtful: set[date] = set()
        if whole:
            parts = self._files([ArchiveName(self._symbol, self._interval, "monthly", month)])
            if not parts and self._exchange.next_open(self._symbol, self._interval, lo, hi) is None:
                yield from self._rest(lo, hi)
                return
            doubtful = self._doubtful_days(parts, lo, hi)
        if not parts and (hi - lo) > timedelta(milliseconds=_FEW_PAGES * PAGE * (interval_ms(self._interval) or 0)):
            days = [day for day in _days(lo, hi) if midnight(day) >= lo and midnight(day + _DAY) <= hi]
            parts = self._files(ArchiveName(self._symbol, self._interval, "daily", day) for day in days)
        yield from self._complete(parts, lo, hi, doubtful)

    def _files(self, names: Iterator[ArchiveName] | list[ArchiveName]) -> list[Fetched]:
        """Read the files that can be used; note the others, whose candles come from the next best source."""
        found = []
        for _, answer in self._archive.read_all(names):
            if isinstance(answer, BadCandles):
                self._notes.append(f"{answer} Its candles were taken from daily archives or REST.")
            elif answer is not None:
                found.append(answer)
        return found

    def _complete(self, parts: list[Fetched], lo: datetime, hi: datetime, doubtful: set[date]) -> Iterator[Fetched]:
        """Yield [lo, hi) completely: each day from its archive, or from REST if candles are missing or in doubt."""
        held = [part for part in parts if part.frame.height]
        short = self._short_days(held, lo, hi) | doubtful

        def provider(day: date) -> int:
            """Return the index in ``held`` of the part that covers the day; -1 for REST."""
            if day in short:
                return -1
            return next((i for i, part in enumerate(held) if part.lo <= midnight(day) < part.hi), -1)

        for index, days in groupby(_days(lo, hi), provider):
            run = list(days)
            start, stop = max(lo, midnight(run[0])), min(hi, midnight(run[-1] + _DAY))
            if index >= 0:
                yield self._noted(_cut(held[index], start, stop))
                continue
            for answer in self._rest(start, stop):
                yield from self._compare(answer, held)

    def _short_days(self, held: list[Fetched], lo: datetime, hi: datetime) -> set[date]:
        """Return the days of [lo, hi) with a grid point for which no file has a candle."""
        present = pl.concat([part.frame.select("timestamp") for part in held]) if held else None
        expected = expected_opens(self._interval, lo, hi).to_frame("timestamp")
        if present is not None:
            expected = expected.join(present.select(floor_open(self._interval)), on="timestamp", how="anti")
        return set(expected["timestamp"].dt.date().unique().to_list())

    def _doubtful_days(self, parts: list[Fetched], lo: datetime, hi: datetime) -> set[date]:
        """Return the days whose candles in the monthly file do not add up to REST's 1d candle."""
        if not parts or not is_intraday(self._interval):
            return set()
        sums = (
            pl.concat([part.frame for part in parts])
            .group_by(pl.col("timestamp").dt.truncate("1d"))  # the rows of a file, and so of each group, ascend
            .agg(
                pl.col("open").first(),
                pl.col("high").max(),
                pl.col("low").min(),
                pl.col("close").last(),
                pl.col("volume", "quote_asset_volume").sum(),
                pl.col("trades").cast(pl.Int64).sum(),
            )
        )
        wanted = self._day_candles.read(self._symbol, lo, hi, self._now).select(sums.columns)
        # the sums are wider than a candle's columns, so the candles are cast and not the sums
        wrong = wanted.cast(sums.schema).join(sums, on=sums.columns, how="anti")
        return set(wrong["timestamp"].dt.date().to_list())

    def _compare(self, answer: Fetched, held: list[Fetched]) -> Iterator[Fetched]:
        """Yield REST's answer, each day replaced by an archive that has more of it; note the differences."""
        chosen: list[tuple[date, Fetched]] = []
        for day in _days(answer.lo, answer.hi):
            rest = _cut(answer, max(answer.lo, midnight(day)), min(answer.hi, midnight(day + _DAY)))
            best = rest
            for part in held:
                mine = _cut(part, rest.lo, rest.hi)
                if not mine.frame.height or mine.frame.equals(rest.frame):
                    continue
                if mine.frame.height > rest.frame.height:
                    best = mine
                self._notes.append(
                    f"{self._symbol} {self._interval} {day}: {part.origin.name} holds {mine.frame.height}"
                    f" candles, REST {rest.frame.height}, not all alike; those of {best.origin.name} are"
                    " kept."
                )
            chosen.append((day, best))
        for origin, group in groupby(chosen, lambda pair: pair[1].origin):
            pieces = [piece for _, piece in group]
            frame = pl.concat([piece.frame for piece in pieces])
            yield self._noted(Fetched(frame, origin, pieces[0].lo, pieces[-1].hi))

    def _rest(self, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        return self._exchange.fetch_closed(self._symbol, self._interval, lo, hi, self._now)

    def _noted(self, stretch: Fetched) -> Fetched:
        """Return the stretch with the notes collected so far; each note is returned once."""
        notes, self._notes = tuple(self._notes), []
        return Fetched(stretch.frame, stretch.origin, stretch.lo, stretch.hi, (*stretch.notes, *notes))


def _days(lo: datetime, hi: datetime) -> list[date]:
    """Return the UTC days that [lo, hi) touches."""
    return days_between(lo.date(), (hi - timedelta(microseconds=1)).date() + _DAY)


def _cut(part: Fetched, lo: datetime, hi: datetime) -> Fetched:
    frame = part.frame.filter(pl.col("timestamp").is_between(lo, hi, closed="left"))
    return Fetched(frame, part.origin, lo, hi, part.notes)
