"""What a source of candles is: the interface between those who deliver candles and those who store them.

Here belong the protocol `Source`, the stretch it delivers (`Fetched`), the trading rules of a symbol and the
spelling of a market. How candles are fetched belongs to the sources (exchange, archive, folder, planner).

A source says two things about a stretch: these are the candles, and there are no others. The second is what
makes a gap provable, so a `Fetched` names the range it answers completely; what lies outside any answered
range is unknown, not absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

import polars as pl

from algobot_assets.schema.intervals import floor_open

#: How a USD-M perpetual is told from the spot symbol of the same name.
FUTURES_SUFFIX = ".UM"

Kind = Literal["monthly archive", "daily archive", "rest", "file"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stretch of candles came from, kept with the candles.

    kind: the sort of source. name: the archive's file name, the endpoint, or the file's path within its
    folder. sha256: checksum of the file's bytes, None for REST. requested_at: the server's time of the
    request (UTC), None for a file."""

    kind: Kind
    name: str
    sha256: str | None = None
    requested_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A stretch of one market that its origin answers completely.

    frame: the market_data frame of the closed candles that open in [lo, hi), ascending. A candle of the
    grid in [lo, hi) that is not in the frame does not exist as far as the origin knows. notes: sentences
    for people about how the stretch was had (a corrupt archive passed over, rows where two sources differ).
    """

    frame: pl.DataFrame
    origin: Origin
    lo: datetime
    hi: datetime
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """The exchange's trading rules of a symbol, as of the time they were asked.

    tick: smallest price step, quote asset. step: smallest quantity step, base asset. min_notional: smallest
    order value, quote asset. None where the exchange states none. status: TRADING, HALT, BREAK, ...
    """

    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    tick: Decimal | None
    step: Decimal | None
    min_notional: Decimal | None


class Source(Protocol):
    """Something that can be asked for candles. Times are UTC; a symbol ending in .UM is a USD-M perpetual."""

    @property
    def name(self) -> str:
        """What people call the source; it stands in their messages."""
        ...

    def server_time(self) -> datetime:
        """The source's own clock: no candle it delivers ends after it."""
        ...

    def known_through(self, symbol: str, interval: str) -> datetime:
        """The time up to which the source can tell what a market did; later candles may still come."""
        ...

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """The open of the market's first candle (its listing); None where it has no candle yet."""
        ...

    def symbols(self, market: str = "spot") -> Sequence[str]:
        """The symbols of one market ('spot' or 'um'), ascending, futures with their suffix."""
        ...

    def rules(self, symbol: str) -> SymbolRules | None:
        """The trading rules of a symbol; None where the source has none (files). SourceError if unknown."""
        ...

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """The closed candles that open in [lo, hi), as stretches that are ascending, disjoint and within one
        calendar month. They end at `known_through` or earlier. At most one market-month is held at a time.
        Errors: SourceError (for good), SourceUnavailable (run again later), BadCandles (unusable rows)."""
        ...

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """The SHA-256 (hex) published now for files of one market, each the (kind, name) of an `Origin`; None
        for one that is not, or no longer, published. A small request per file at most."""
        ...

    def close(self) -> None:
        """Give back connections; the source is not used afterwards."""
        ...


def market_of(symbol: str) -> tuple[str, str]:
    """('spot' or 'um', the exchange's own spelling) of a symbol: 'BTCUSDT.UM' is ('um', 'BTCUSDT')."""
    if symbol.endswith(FUTURES_SUFFIX):
        return "um", symbol[: -len(FUTURES_SUFFIX)]
    return "spot", symbol


def symbol_of(market: str, name: str) -> str:
    """The inverse of `market_of`."""
    return name + FUTURES_SUFFIX if market == "um" else name


def floor_to_grid(interval: str, moment: datetime, phase: int | None = None) -> datetime:
    """The open of the candle that is forming at ``moment``: every candle that opens earlier has ended."""
    return (
        pl.DataFrame({"timestamp": [moment]}, schema={"timestamp": pl.Datetime("us", "UTC")})
        .select(floor_open(interval, phase))
        .item()
    )
