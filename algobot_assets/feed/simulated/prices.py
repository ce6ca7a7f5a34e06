"""Generate made-up but lifelike candles for the simulated exchange.

Every candle is a function of the seed, the symbol and its time alone, so any window can be generated without the
candles before it: a day is a bridge between two points of the symbol's daily walk, and longer candles are sums of its
minutes.

The walk has clustered volatility and a weak pull to its anchor. Minutes follow a daily rhythm; quiet minutes without a
trade repeat the last price, and, as on the real exchange, longer candles ignore such minutes."""

from __future__ import annotations

import math
import zlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import numpy as np
import polars as pl

from algobot_assets.feed.klines import PUBLISHED
from algobot_assets.feed.simulated.listings import LISTINGS, Listing
from algobot_assets.schema.intervals import (
    candle_end,
    floor_open,
    midnight,
    month_start,
    months_between,
    next_month,
    phase_of,
)

_ORIGIN = date(2017, 1, 1)
_WALK_DAYS = 40 * 366
_MINUTES = 1440
_MINUTE_MS = 60_000
_UNIT = 10**8  # money and text are counted in units of 1e-8


class SimulatedPrices:
    """The candles of ``listings`` for one ``seed``; during ``outages`` (half-open ranges) no candle exists."""

    def __init__(
        self,
        listings: tuple[Listing, ...] = LISTINGS,
        seed: int = 1,
        outages: tuple[tuple[datetime, datetime], ...] = (),
    ) -> None:
        self.listings = {listing.symbol: listing for listing in listings}
        self._seed = seed
        self._outages = outages
        self._walk = lru_cache(maxsize=None)(self._make_walk)
        self._minutes = lru_cache(maxsize=24)(self._make_minutes)
        self._month = lru_cache(maxsize=128)(self._make_month)
        self._large_month = lru_cache(maxsize=6)(self._make_month)  # a month of minutes as text is 8 MB

    def ended(self, symbol: str, now: datetime) -> bool:
        """Return whether the symbol has stopped trading by ``now``."""
        delisted = self.listings[symbol].delisted
        return delisted is not None and delisted <= now

    def months(self, symbol: str, now: datetime) -> list[date]:
        """Return the months, ascending, in which the symbol may have candles up to ``now``."""
        listing = self.listings[symbol]
        # A week or a triple of days that has begun in one month may be all there is of the next.
        first = listing.listed.date() - timedelta(days=7)
        return months_between(first, now.date() + timedelta(days=1))

    def candles(self, symbol: str, interval: str, month: date, now: datetime) -> pl.DataFrame:
        """Return the candles that open in ``month`` as published at ``now``: Binance's 12 columns, values as text,
        times in milliseconds; the last one may still be forming."""
        if candle_end(interval, midnight(next_month(month))) <= now:
            cached = self._large_month if interval in ("1m", "3m") else self._month
            return cached(symbol, interval, month)
        lo, hi = midnight(month), midnight(next_month(month))
        minutes = self._until(symbol, lo, min(now, candle_end(interval, hi)))
        return self._text(symbol, self._longer(symbol, interval, minutes, lo, hi))

    def _make_month(self, symbol: str, interval: str, month: date) -> pl.DataFrame:
        lo, hi = midnight(month), midnight(next_month(month))
        through = candle_end(interval, hi) if interval in ("3d", "1w") else hi
        return self._text(symbol, self._longer(symbol, interval, self._range(symbol, lo, through), lo, hi))

    def _range(self, symbol: str, lo: datetime, hi: datetime) -> pl.DataFrame:
        """Return the minutes that open in [lo, hi), as whole numbers: see `_make_minutes`."""
        frames = [self._minutes(symbol, month) for month in months_between(lo.date(), hi.date() + timedelta(days=1))]
        return pl.concat(frames).filter(pl.col("open_time").is_between(_ms(lo), _ms(hi), closed="left"))

    def _until(self, symbol: str, lo: datetime, now: datetime) -> pl.DataFrame:
        """Return the minutes from ``lo`` on as of ``now``; the last one is only partly over."""
        minutes = self._range(symbol, lo, now)
        started = _ms(now) // _MINUTE_MS * _MINUTE_MS
        share = (_ms(now) - started) / _MINUTE_MS
        if minutes.is_empty() or minutes["open_time"][-1] != started:
            return minutes
        candle = minutes.row(-1, named=True)
        close = candle["open"] + round((candle["close"] - candle["open"]) * share)
        candle |= {name: int(candle[name] * share) for name in ("volume", "quote", "count", "buy", "buy_quote")}
        candle |= {"close": close, "high": max(candle["open"], close), "low": min(candle["open"], close)}
        return pl.concat([minutes.head(-1), pl.DataFrame([candle], schema=minutes.schema)])

    def _longer(self, symbol: str, interval: str, minutes: pl.DataFrame, lo: datetime, hi: datetime) -> pl.DataFrame:
        """Sum minutes into the candles of ``interval`` that open in [lo, hi)."""
        phase = phase_of(self.listings[symbol].listed)
        opened = _time("open_time").alias("timestamp")
        if interval == "1m":
            candles = minutes
        else:
            grouped = (
                minutes.with_columns(opened)
                .with_columns(floor_open(interval, phase))
                .with_columns(
                    # If the whole candle had no trade, all its minutes count; otherwise only those with a trade.
                    (pl.col("count").sum().over("timestamp") == 0).alias("idle")
                )
            )
            candles = (
                grouped.filter((pl.col("count") > 0) | pl.col("idle"))
                .group_by("timestamp", maintain_order=True)
                .agg(
                    pl.col("open").first(),
                    pl.col("high").max(),
                    pl.col("low").min(),
                    pl.col("close").last(),
                    pl.col("volume", "count", "buy").sum(),
                    # Whole and fractional parts are summed apart: a month of quote volume in 1e-8 is beyond 64 bits.
                    (pl.col("quote", "buy_quote") // _UNIT).sum().name.suffix("_whole"),
                    (pl.col("quote", "buy_quote") % _UNIT).sum(),
                )
                .with_columns(pl.col("timestamp").dt.epoch("ms").alias("open_time"))
            )
        if interval == "1m":
            candles = candles.with_columns(quote_whole=pl.lit(0), buy_quote_whole=pl.lit(0))
        candles = candles.filter(pl.col("open_time").is_between(_ms(lo), _ms(hi), closed="left"))
        if interval == "1M":
            end = _time("open_time").dt.offset_by("1mo").dt.epoch("ms")
        else:
            end = pl.col("open_time") + (candle_end(interval, lo) - lo) // timedelta(milliseconds=1)
        return candles.with_columns(close_time=end - 1)

    def _text(self, symbol: str, candles: pl.DataFrame) -> pl.DataFrame:
        """Print the candles as Binance does."""
        listing = self.listings[symbol]
        price, volume, quote = listing.decimals
        per_tick, per_step = _per(listing.tick), _per(listing.step)
        return candles.select(
            "open_time",
            *(_print(name, per_tick, price) for name in ("open", "high", "low", "close")),
            _print("volume", per_step, volume),
            "close_time",
            _print("quote", _UNIT, quote, "quote_whole").alias("quote_volume"),
            "count",
            _print("buy", per_step, volume).alias("taker_buy_volume"),
            _print("buy_quote", _UNIT, quote, "buy_quote_whole").alias("taker_buy_quote_volume"),
            pl.lit("0").alias("ignore"),
        ).select(*PUBLISHED)

    def _make_walk(self, symbol: str) -> np.ndarray:
        """Return the logarithm of the price at each midnight from 2017 on, and each day's volatility, as two
        rows."""
        listing = self.listings[symbol]
        chance = self._chance(symbol, 0)
        shocks = chance.standard_normal((2, _WALK_DAYS))
        anchor = math.log(listing.price)
        floor = math.log(float(listing.tick) * 100)
        level, heat = anchor, 0.0
        walk = np.empty((2, _WALK_DAYS))
        for day in range(_WALK_DAYS):
            volatility = listing.daily_volatility * math.exp(heat)
            walk[:, day] = max(level, floor), volatility
            level += volatility * shocks[0, day] - 0.003 * (level - anchor)
            heat = 0.93 * heat + 0.15 * shocks[1, day]
        return walk

    def _make_minutes(self, symbol: str, month: date) -> pl.DataFrame:
        """Return the minutes of a month: open_time in ms; open, high, low, close in ticks; volume and buy (of
        takers) in steps; quote and buy_quote in 1e-8; count. All Int64."""
        listing = self.listings[symbol]
        days = (month_start(next_month(month)) - month).days
        parts = [self._day(symbol, month + timedelta(days=day)) for day in range(days)]
        columns = np.concatenate(parts, axis=1)
        names = ("open_time", "open", "high", "low", "close", "volume", "quote", "count", "buy", "buy_quote")
        frame = pl.DataFrame(dict(zip(names, columns, strict=True)))
        trading = pl.col("open_time") >= _ms(listing.listed)
        if listing.delisted is not None:
            trading &= pl.col("open_time") < _ms(listing.delisted)
        for begin, end in self._outages:
            trading &= ~pl.col("open_time").is_between(_ms(begin), _ms(end), closed="left")
        return frame.filter(trading)

    def _day(self, symbol: str, day: date) -> np.ndarray:
        """Return one day's minutes, rows as named in `_make_minutes`."""
        listing = self.listings[symbol]
        index = (day - _ORIGIN).days
        walk = self._walk(symbol)
        begin, end, volatility = walk[0, index], walk[0, index + 1], walk[1, index]
        chance = self._chance(symbol, 1 + index)
        normal = chance.standard_normal((5, _MINUTES))
        uniform = chance.random((3, _MINUTES))

        heat = np.exp(0.4 * np.repeat(normal[0, ::15], 15) - 0.08) * _rhythm()
        moves = volatility / math.sqrt(_MINUTES) * heat * normal[1]
        path = np.concatenate(([begin], begin + np.cumsum(moves)))
        path += np.linspace(0.0, end - path[-1], _MINUTES + 1)  # the bridge: it ends where tomorrow begins
        points = np.maximum(np.rint(np.exp(path) / float(listing.tick)), 2).astype(np.int64)
        opened, closed = points[:-1].copy(), points[1:]
        opened[1:] += np.where(uniform[0, 1:] < 0.3, np.sign(normal[2, 1:]).astype(np.int64), 0)
        reach = points[:-1] * volatility / math.sqrt(_MINUTES) * heat
        high = np.maximum(opened, closed) + np.rint(reach * np.abs(normal[2])).astype(np.int64)
        low = np.minimum(opened, closed) - np.rint(reach * np.abs(normal[3])).astype(np.int64)
        low = np.maximum(low, 1)

        worth = listing.turnover * heat * np.exp(0.7 * normal[4] - 0.25) * (0.5 + np.abs(normal[1]))
        price = closed * float(listing.tick)
        volume = np.maximum(np.rint(worth / price / float(listing.step)), 1).astype(np.int64)
        # The mean of four prices lies between low and high, and therefore quote volume / volume as well.
        worth_unit = int(listing.tick * listing.step * _UNIT)
        quote = volume * (opened + high + low + closed) * worth_unit // 4
        coarse = 10 ** (8 - listing.decimals[2])
        quote = quote // coarse * coarse
        share = np.rint((0.3 + 0.4 * uniform[1]) * 1000).astype(np.int64)
        buy = volume * share // 1000
        buy_quote = quote // coarse // 1000 * share * coarse
        count = np.maximum(np.rint(np.sqrt(worth)), 1).astype(np.int64)

        quiet = uniform[2] < listing.quiet
        quiet[0] = False
        last = closed[np.maximum.accumulate(np.where(quiet, 0, np.arange(_MINUTES)))]
        opened, high, low, closed = (np.where(quiet, last, row) for row in (opened, high, low, closed))
        volume, quote, count, buy, buy_quote = (
            np.where(quiet, 0, row) for row in (volume, quote, count, buy, buy_quote)
        )
        times = _ms(midnight(day)) + _MINUTE_MS * np.arange(_MINUTES, dtype=np.int64)
        return np.stack((times, opened, high, low, closed, volume, quote, count, buy, buy_quote))

    def _chance(self, symbol: str, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self._seed, zlib.crc32(symbol.encode()) << 20 | stream]))


@lru_cache(maxsize=1)
def _rhythm() -> np.ndarray:
    """Return the activity of each minute of a UTC day, mean 1: highest when Europe and America are both awake."""
    hour = np.arange(_MINUTES) / 60
    lively: np.ndarray = 0.8 + 0.5 * np.exp(-(((hour - 14.5) / 3.5) ** 2)) + 0.2 * np.exp(-(((hour - 1) / 2) ** 2))
    rhythm: np.ndarray = lively / lively.mean()
    return rhythm


def _per(unit: Decimal) -> int:
    """Return how many of ``unit`` make one."""
    return int(1 / unit)


def _print(column: str, per: int, decimals: int, whole: str | None = None) -> pl.Expr:
    """Return the expression that prints whole numbers of 1/``per``, plus ``whole`` ones, with ``decimals`` decimals."""
    integer = pl.col(column) // per
    if whole is not None:
        integer = integer + pl.col(whole)
    fraction = pl.col(column) % per * 10**decimals // per
    return pl.concat_str(integer.cast(pl.String), pl.lit("."), fraction.cast(pl.String).str.zfill(decimals)).alias(
        column
    )


def _time(column: str) -> pl.Expr:
    return (pl.col(column) * 1000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
