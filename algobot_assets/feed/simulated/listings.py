"""Define the symbols of the simulated exchange and their trading behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol of the simulated exchange.

    listed, delisted: first and (exclusive) last instant of trading, UTC. price: start and long-run mean of the random
    walk, quote asset. daily_volatility: fraction. turnover: quote asset per minute. quiet: share of minutes without a
    trade. decimals: number of decimals printed for prices, volumes and quote volumes."""

    symbol: str
    base_asset: str
    quote_asset: str
    listed: datetime
    price: float
    tick: Decimal
    step: Decimal
    turnover: float
    daily_volatility: float = 0.03
    quiet: float = 0.0
    min_notional: Decimal = Decimal(5)
    delisted: datetime | None = None
    decimals: tuple[int, int, int] = (8, 8, 8)


def _utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def _tether(base: str, listed: datetime, price: float, tick: str, step: str, turnover: float, **more: Any) -> Listing:
    return Listing(f"{base}USDT", base, "USDT", listed, price, Decimal(tick), Decimal(step), turnover, **more)


#: Large and small prices, volumes of 14 digits (SHIBUSDT), a young, a delisted and a perpetual market.
LISTINGS = (
    _tether("BTC", _utc(2017, 8, 17, 4), 30_000, "0.01", "0.00001", 900_000),
    _tether("ETH", _utc(2017, 8, 17, 4), 1_900, "0.01", "0.0001", 450_000, daily_volatility=0.04),
    _tether("DOGE", _utc(2019, 7, 5, 12), 0.09, "0.00001", "1", 60_000, daily_volatility=0.05, quiet=0.02),
    _tether("SHIB", _utc(2021, 5, 10, 11), 2.1e-6, "0.00000001", "1", 250_000, daily_volatility=0.06),
    _tether("FRESH", _utc(2025, 3, 18, 15, 30), 1.4, "0.0001", "0.1", 9_000, daily_volatility=0.08, quiet=0.05),
    _tether(
        "GONE",
        _utc(2022, 3, 11, 6),
        0.35,
        "0.0001",
        "0.1",
        900,
        daily_volatility=0.07,
        quiet=0.2,
        delisted=_utc(2024, 9, 8, 9),
    ),
    Listing(
        "BTCUSDT.UM",
        "BTC",
        "USDT",
        _utc(2019, 9, 8, 17, 57),
        30_000,
        Decimal("0.1"),
        Decimal("0.001"),
        3_000_000,
        min_notional=Decimal(100),
        decimals=(2, 3, 5),
    ),
)
