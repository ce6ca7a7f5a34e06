"""Compute the stored indicators of one market's candles: ema, rsi, atr and vwap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from algobot_assets.compute import kernels
from algobot_assets.compute.candles import as_floats
from algobot_assets.compute.carry import MAX_WINDOW, Chunk, Days, check_window
from algobot_assets.errors import SettingsError
from algobot_assets.schema.intervals import is_intraday

CONFIGURATIONS = {
    "indicators.ema_window": "ema",
    "indicators.rsi_window": "rsi",
    "indicators.atr_window": "atr",
    "indicators.vwap_mode": "vwap_mode",
    "indicators.vwap_window": "vwap_window",
}
"""Name in `configurations`, and the field of IndicatorWindows that it sets."""


@dataclass(frozen=True)
class IndicatorWindows:
    """The settings of the indicators; windows in candles.

    `vwap_mode` is "session" (since 00:00 UTC), "rolling" (over the last `vwap_window` candles) or "auto" (session below
    one day, rolling from one day on). SettingsError for an unknown mode, or a window that is not a whole number from 2
    to MAX_WINDOW: over one candle no indicator has a meaning.

    >>> IndicatorWindows(rsi=21).as_parameters("1h")
    {'ema': 14, 'rsi': 21, 'atr': 14, 'vwap_mode': 'session'}
    """

    ema: int = 14
    rsi: int = 14
    atr: int = 14
    vwap_mode: str = "auto"
    vwap_window: int = 14

    def __post_init__(self) -> None:
        for name, field in CONFIGURATIONS.items():
            value = getattr(self, field)
            if field == "vwap_mode":
                if value not in ("session", "rolling", "auto"):
                    raise SettingsError(f"{name} is {value!r}; it must be session, rolling or auto.")
            elif isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= MAX_WINDOW:
                raise SettingsError(f"{name} is {value!r}; it must be a whole number from 2 to {MAX_WINDOW}.")

    @classmethod
    def from_configurations(cls, values: Mapping[str, str]) -> IndicatorWindows:
        """Return the settings from rows of `configurations`, {config_name: config_value}, in force on a day.

        Names outside "indicators." are ignored, and missing names have their defaults. SettingsError for an unknown
        "indicators." name or a wrong value.
        """
        chosen: dict[str, Any] = {}
        for name, text in values.items():
            if not name.startswith("indicators."):
                continue
            if name not in CONFIGURATIONS:
                known = ", ".join(CONFIGURATIONS)
                raise SettingsError(f"There is no configuration {name}. The indicators have: {known}.")
            field = CONFIGURATIONS[name]
            chosen[field] = text if field == "vwap_mode" else _whole(name, text)
        return cls(**chosen)

    def vwap_mode_for(self, interval: str) -> str:
        """Return the mode for an interval, "session" or "rolling"."""
        if self.vwap_mode != "auto":
            return self.vwap_mode
        return "session" if is_intraday(interval) else "rolling"

    def as_parameters(self, interval: str) -> dict[str, int | str]:
        """Return all settings that decide the values for this interval; lineage digests them."""
        mode = self.vwap_mode_for(interval)
        chosen = {field.name: getattr(self, field.name) for field in fields(self)} | {"vwap_mode": mode}
        if mode == "session":
            del chosen["vwap_window"]
        return chosen


def compute_indicators(
    candles: pl.DataFrame,
    windows: IndicatorWindows,
    interval: str,
    days: Days,
    state: np.ndarray | None = None,
) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the indicators of one market's candles, and the state at the end of each day.

    `candles` ascend by timestamp and have high, low, close and volume (Decimal or Float64). `state` is the one at the
    end of the day before, None at the market's first candle. The frame has one row per candle: timestamp and, in
    Float64, ema, atr, vwap (quote asset per base asset) and rsi (0 to 100), null while warming. The states have the
    shape (days, numbers), see `Chunk.states`. Any chunking gives the same bits of both.

    ema is `Chunk.ema` of the close; rsi, atr and vwap are the functions of this module.
    """
    if not candles["timestamp"].is_sorted():
        raise ValueError("candles must ascend by timestamp")
    high, low, close, volume = as_floats(candles, "high", "low", "close", "volume")
    chunk = Chunk(days, state)
    frame = pl.DataFrame(
        {
            "timestamp": candles["timestamp"],
            "ema": chunk.ema(close, windows.ema),
            "rsi": rsi(chunk, close, windows.rsi),
            "atr": atr(chunk, high, low, close, windows.atr),
            "vwap": session_vwap(chunk, high, low, close, volume)
            if windows.vwap_mode_for(interval) == "session"
            else rolling_vwap(chunk, high, low, close, volume, windows.vwap_window),
        }
    )
    return frame, chunk.states()


def rsi(chunk: Chunk, close: pl.Series, n: int) -> pl.Series:
    """Return Wilder's relative strength index of the close, 0 to 100; null at the first n candles.

    100 g/(g + l), where g and l are Wilder's averages of the rises and falls of the close, seeded with the mean of the
    first n; 50 if both are exactly 0. Equal to TA-Lib's RSI, except that TA-Lib's is 0 there (and from 1e-14 down).
    State: previous close, changes seen, g, l.
    """
    return chunk.scan(f"rsi {n}", kernels.rsi, (np.nan, 0.0, 0.0, 0.0), [close], check_window(n))


def atr(chunk: Chunk, high: pl.Series, low: pl.Series, close: pl.Series, n: int) -> pl.Series:
    """Return Wilder's average true range, in units of the price; null at the first n candles. Equal to TA-Lib's ATR.

    True range: max(high, previous close) - min(low, previous close); the market's first candle has none.
    State: previous close, ranges seen, their average.
    """
    return chunk.scan(f"atr {n}", kernels.atr, (np.nan, 0.0, 0.0), [high, low, close], check_window(n))


def session_vwap(chunk: Chunk, high: pl.Series, low: pl.Series, close: pl.Series, volume: pl.Series) -> pl.Series:
    """Return the mean of (high + low + close)/3, weighted by volume, since 00:00 UTC; null while that volume is 0.

    In units of the price. Both sums restart every day, so nothing is carried.
    """
    return chunk.scan("session vwap", kernels.session_vwap, (), [high, low, close, volume])


def rolling_vwap(
    chunk: Chunk, high: pl.Series, low: pl.Series, close: pl.Series, volume: pl.Series, n: int
) -> pl.Series:
    """Return the mean of (high + low + close)/3, weighted by volume, over the last `n` candles.

    In units of the price. Null until there are n candles, and where their volume is 0. State: the last n - 1 products
    and volumes.
    """
    # NumPy's division, because Polars divides a series by a number by multiplying with the reciprocal.
    typical = pl.Series((high + low + close).to_numpy() / 3.0)
    paid = chunk.rolling_sum(typical * volume, n)
    traded = chunk.rolling_sum(volume, n)
    return (paid / traded).set(traded <= 0.0, None)


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; it must be a whole number from 2 to {MAX_WINDOW}.") from None
