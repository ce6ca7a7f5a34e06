"""Replay real candles from Parquet files through the simulated exchange, digit by digit."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import polars as pl

from algobot_assets.errors import SettingsError
from algobot_assets.feed.archive_files import interval_of
from algobot_assets.feed.klines import PUBLISHED
from algobot_assets.feed.simulated.listings import Listing
from algobot_assets.feed.source import symbol_of
from algobot_assets.schema.intervals import midnight, months_between, next_month

_FILE = re.compile(r"(?P<symbol>[^/-]+)-(?P<interval>[^/-]+)(?:-[^/]*)?\.parquet")
_SMALLEST = Decimal("0.00000001")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ReplayedPrices:
    """The candles of {spot|futures-um}/SYMBOL-INTERVAL-*.parquet below ``root``: Binance's 12 columns,
    values as text, times in milliseconds. A candle has its final figures from its open on. Trading rules
    are not in the files; every symbol has the finest tick and step."""

    def __init__(self, root: str | Path) -> None:
        self._files: dict[tuple[str, str], list[Path]] = {}
        self.listings: dict[str, Listing] = {}
        self._through: dict[str, int] = {}
        for folder, market in (("spot", "spot"), ("futures-um", "um")):
            for path in sorted(Path(root, folder).glob("*.parquet")):
                if found := _FILE.fullmatch(path.name):
                    self._enter(symbol_of(market, found["symbol"]), interval_of(found["interval"]), path)
        if not self._files:
            raise SettingsError(f"{root} holds no spot/*.parquet or futures-um/*.parquet to replay. Name another.")
        self._market = lru_cache(maxsize=4)(self._read)

    def _enter(self, symbol: str, interval: str, path: Path) -> None:
        self._files.setdefault((symbol, interval), []).append(path)
        opens = pl.scan_parquet(path).select(pl.col("open_time").min().alias("a"), pl.col("open_time").max().alias("b"))
        first, last = opens.collect().row(0)
        listed = _EPOCH + timedelta(milliseconds=first)
        known = self.listings.get(symbol)
        quote = "USDT" if symbol.removesuffix(".UM").endswith("USDT") else ""
        self.listings[symbol] = Listing(
            symbol,
            symbol.removesuffix(".UM").removesuffix(quote),
            quote,
            min(listed, known.listed) if known else listed,
            price=0.0,
            tick=_SMALLEST,
            step=_SMALLEST,
            turnover=0.0,
        )
        self._through[symbol] = max(last, self._through.get(symbol, last))

    def ended(self, symbol: str, now: datetime) -> bool:
        """Return False: the end of a file does not prove a delisting."""
        return False

    def months(self, symbol: str, now: datetime) -> list[date]:
        """Return the months of the symbol's files, up to ``now``."""
        last = min(now, _EPOCH + timedelta(milliseconds=self._through[symbol]))
        return months_between(self.listings[symbol].listed.date(), last.date() + timedelta(days=1))

    def candles(self, symbol: str, interval: str, month: date, now: datetime) -> pl.DataFrame:
        """Return the published rows that open in ``month`` and not after ``now``."""
        end = min((midnight(next_month(month)) - _EPOCH), now - _EPOCH + timedelta(milliseconds=1))
        lo, hi = (span // timedelta(milliseconds=1) for span in (midnight(month) - _EPOCH, end))
        return self._market(symbol, interval).filter(pl.col("open_time").is_between(lo, hi, closed="left"))

    def _read(self, symbol: str, interval: str) -> pl.DataFrame:
        files = self._files.get((symbol, interval))
        if not files:
            return pl.DataFrame(schema={name: pl.Int64 if "time" in name else pl.String for name in PUBLISHED})
        rows = pl.concat([pl.read_parquet(path, columns=list(PUBLISHED)) for path in files])
        return rows.unique("open_time", keep="first").sort("open_time")
