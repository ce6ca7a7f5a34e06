"""Define the interface of a source of candles: the protocol `Source` and the stretches it delivers (`Fetched`).

A source makes two statements about a stretch: these are the candles, and there are no others. The second makes a
gap provable, so a `Fetched` names the range it covers completely; anything outside a covered range is unknown,
not absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

import polars as pl

from algobot_assets.schema.intervals import floor_open
from algobot_assets.schema.symbols import FUTURES_SUFFIX

Kind = Literal["monthly archive", "daily archive", "rest", "file"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a stretch of candles, stored with the candles.

    kind: the kind of source. name: the archive's file name, the endpoint, or the file's path within its
    folder. sha256: checksum of the file's bytes, None for REST. requested_at: the server's time of the
    request (UTC), None for a file."""

    kind: Kind
    name: str
    sha256: str | None = None
    requested_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A stretch of one market that its origin covers completely.

    frame: the market_data frame of the closed candles that open in [lo, hi), ascending. A candle of the
    grid in [lo, hi) that is not in the frame does not exist as far as the origin knows. notes: sentences
    for people about how the stretch was obtained (a corrupt archive skipped, rows in which two sources differ).
    """

    frame: pl.DataFrame
    origin: Origin
    lo: datetime
    hi: datetime
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """The exchange's trading rules of a symbol, as of the time of the request.

    tick: smallest price step, quote asset. step: smallest quantity step, base asset. min_notional: smallest
    order value, quote asset. None if the exchange states none. status: TRADING, HALT, BREAK, ... delivery: when a
    dated contract is delivered, None for other symbols.
    """

    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    tick: Decimal | None
    step: Decimal | None
    min_notional: Decimal | None
    delivery: datetime | None = None


class Source(Protocol):
    """A source of candles. Times are UTC; a symbol ending in .UM is a USD-M future."""

    @property
    def name(self) -> str:
        """The name of the source in messages for people."""
        ...

    def server_time(self) -> datetime:
        """Return the source's own clock: no candle it delivers ends after it."""
        ...

    def known_through(self, symbol: str, interval: str) -> datetime:
        """Return the time up to which the source knows the market; later candles may still come."""
        ...

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """Return the open of the market's first candle (its listing); None if it has no candle yet."""
        ...

    def symbols(self, market: str = "spot") -> Sequence[str]:
        """Return the symbols of one market ('spot' or 'um'), ascending, futures with their suffix."""
        ...

    def rules(self, symbol: str) -> SymbolRules | None:
        """Return the trading rules of a symbol; None if the source has none (files). SourceError if unknown."""
        ...

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """Yield the closed candles that open in [lo, hi), as stretches that are ascending, disjoint and within one
        calendar month. They end at `known_through` or earlier. At most one market-month is held at a time.
        Errors: SourceError (permanent), SourceUnavailable (run again later), BadCandles (unusable rows)."""
        ...

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the SHA-256 (hex) currently published for files of one market, each the (kind, name) of an `Origin`;
        None for a file that is not published (any more). At most one small request per file."""
        ...

    def close(self) -> None:
        """Close the connections; the source must not be used afterwards."""
        ...


def market_of(symbol: str) -> tuple[str, str]:
    """Split a symbol into ('spot' or 'um', the exchange's own spelling): 'BTCUSDT.UM' is ('um', 'BTCUSDT')."""
    if symbol.endswith(FUTURES_SUFFIX):
        return "um", symbol[: -len(FUTURES_SUFFIX)]
    return "spot", symbol


def symbol_of(market: str, name: str) -> str:
    """Return the symbol of a market and the exchange's own spelling; the inverse of `market_of`."""
    return name + FUTURES_SUFFIX if market == "um" else name


def floor_to_grid(interval: str, moment: datetime, phase: int | None = None) -> datetime:
    """Return the open of the candle that is forming at ``moment``: every candle that opens earlier has ended."""
    opened = pl.DataFrame({"timestamp": [moment]}, schema={"timestamp": pl.Datetime("us", "UTC")})
    floored: datetime = opened.select(floor_open(interval, phase)).item()
    return floored
