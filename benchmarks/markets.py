"""Many markets of seeded minutes: their files, their declared state, and a throw-away server to keep them on.

Beside year.py, which has one real market and one year; here a benchmark says how many markets and which days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from algobot_assets.store.server import control as servers
from benchmarks.throwaway import throwaway

#: Strategy types of a market's strategies, in this order.
TYPES = ("ema_cross", "macd", "btc")


def symbol(number: int) -> str:
    """The name of a market, ascending with its number."""
    return f"M{number:03d}USDT"


def declared(markets: int, strategies: int, start: date, effective_from: date | None = None) -> str:
    """A declared state: so many markets of minutes, and so many strategies on each."""
    lines = ["markets:"]
    lines += [f"  - {{symbol: {symbol(n)}, interval: 1m, start: {start}}}" for n in range(markets)]
    lines += ["strategies:"] if strategies else []
    for number in range(markets):
        for kind in TYPES[:strategies]:
            lines += [
                f"  {symbol(number)}_{kind}:",
                f"    type: {kind}",
                f"    market: {symbol(number)} 1m",
                "    initial_balance: 10000",
                "    risk_per_trade: 0.02",
                *([f"    effective_from: {effective_from}"] if effective_from else []),
                "    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2,"
                " take_profit_percentage: 4}",
            ]
    return "\n".join(lines) + "\n"


def published(
    first: date,
    days: int,
    seed: int,
    *,
    minutes: int = 1,
    price: float = 20_000.0,
    volatility: float = 0.0007,
    wick: float = 0.0003,
) -> pl.DataFrame:
    """Seeded candles of so many minutes in the layout of published klines: numbers as texts, times in milliseconds."""
    random = np.random.default_rng(seed)
    rows, step = days * 1440 // minutes, minutes * 60_000
    close = price * np.exp(np.cumsum(random.normal(0, volatility, rows)))
    opened = np.concatenate([[price], close[:-1]])
    volume = random.gamma(2.0, 10.0, rows)
    begin = round(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1000)
    time_ms = begin + step * np.arange(rows)

    def text(values: np.ndarray, places: int) -> pl.Series:
        return pl.Series(values).cast(pl.Decimal(28, places)).cast(pl.String)

    return pl.DataFrame(
        {
            "open_time": time_ms,
            "open": text(opened, 2),
            "high": text(np.maximum(opened, close) * (1 + wick) + 0.01, 2),
            "low": text(np.minimum(opened, close) * (1 - wick) - 0.01, 2),
            "close": text(close, 2),
            "volume": text(volume, 5),
            "close_time": time_ms + step - 1,
            "quote_volume": text(volume * close, 7),
            "count": random.integers(1, 1000, rows),
            "taker_buy_volume": text(volume / 2, 5),
            "taker_buy_quote_volume": text(volume * close / 2, 7),
            "ignore": ["0"] * rows,
        }
    )


def publish(folder: Path, markets: Sequence[int], first: date, days: int) -> None:
    """Put the markets' files into the folder, one per market and calendar month."""
    (folder / "spot").mkdir(parents=True, exist_ok=True)
    for number in markets:
        whole = published(first, days, number)
        month = pl.from_epoch("open_time", time_unit="ms").dt.strftime("%Y-%m").alias("month")
        for (name,), part in whole.group_by(month, maintain_order=True):
            part.write_parquet(folder / "spot" / f"{symbol(number)}-1m-{name}.parquet")


@dataclass(frozen=True)
class World:
    """A scratch folder with klines and a declared state, and a server of its own with a migrated template."""

    server: servers.Server
    folder: Path

    @property
    def klines(self) -> Path:
        """The folder that the settings name as source."""
        return self.folder / "klines"

    def declare(self, text: str) -> None:
        """Write the declared state."""
        (self.folder / "algobot.yaml").write_text(text)


@contextmanager
def world() -> Iterator[World]:
    """A throw-away server; the settings name it, its klines and its declared state."""
    with throwaway() as (server, folder):
        yield World(server, folder)
