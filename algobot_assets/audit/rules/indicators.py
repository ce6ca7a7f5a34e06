"""Rules for stored indicators: values in bounds, and NULL only during warm-up.

Pure functions on per-day counts of one market, so that valid values need not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import polars as pl

from algobot_assets.compute.indicators import IndicatorWindows
from algobot_assets.schema.windows import Window

#: SQL conditions on every value that is not NULL. In PostgreSQL, NaN is greater than all other numbers.
BOUNDS = {
    "ema": "ema > 0 AND ema < 'Infinity'",
    "rsi": "rsi >= 0 AND rsi <= 100",
    "atr": "atr >= 0 AND atr < 'Infinity'",
    "vwap": "vwap > 0 AND vwap < 'Infinity'",
}
_MEANT = {
    "ema": "above 0 and finite",
    "rsi": "from 0 to 100",
    "atr": "not below 0 and finite",
    "vwap": "above 0 and finite",
}


def per_day() -> dict[str, str]:
    """Return the SQL aggregates that the rules read, by name: values out of bounds, and number and place of NULLs."""
    counts = {f"bad_{name}": f"count(*) FILTER (WHERE NOT ({rule}))" for name, rule in BOUNDS.items()}
    counts |= {f"null_{name}": f"count(*) - count({name})" for name in BOUNDS}
    counts |= {f"null_{name}_at": f'max("timestamp") FILTER (WHERE {name} IS NULL)' for name in BOUNDS}
    counts |= {f"value_{name}_at": f'min("timestamp") FILTER (WHERE {name} IS NOT NULL)' for name in BOUNDS}
    return counts


def out_of_bounds(window: Window, days: pl.DataFrame) -> list[str]:
    """Return a message for each day and indicator with values out of bounds."""
    return [
        f"{window.symbol} {window.interval}: {bad} value{'s' if bad > 1 else ''} of {name} on {day} "
        f"{'are' if bad > 1 else 'is'} not {_MEANT[name]}. {_remedy(day)}"
        for name in BOUNDS
        for day, bad in days.filter(pl.col(f"bad_{name}") > 0).select("day", f"bad_{name}").iter_rows()
    ]


def warmth(
    window: Window,
    days: pl.DataFrame,
    before: Mapping[date, int],
    windows_on: Callable[[date], IndicatorWindows],
    nulls_with_volume: Mapping[date, int],
) -> list[str]:
    """Return a message for each day and indicator with NULL after warm-up, or with a value before it ends.

    ``days``: the counts of ``per_day`` with day and rows. ``before``: number of the market's candles before each day.
    ``nulls_with_volume``: number of candles with volume but without vwap, for days with NULLs in vwap.
    """
    who = f"{window.symbol} {window.interval}"
    sentences = []
    for row in days.iter_rows(named=True):
        day, rows = row["day"], row["rows"]
        windows = windows_on(day)
        session = windows.vwap_mode_for(window.interval) == "session"
        # candles without a value during warm-up: n - 1 for a mean of n candles, n for a mean of n differences
        cold = {"ema": windows.ema - 1, "rsi": windows.rsi, "atr": windows.atr, "vwap": windows.vwap_window - 1}
        for name, number in cold.items():
            nulls, scattered = row[f"null_{name}"], _scattered(row, name)
            wanted = min(rows, max(0, number - before[day]))
            if name == "vwap":
                # after warm-up, NULL means no volume; in a session that is possible only before the first trade
                traded = nulls_with_volume.get(day, 0)
                wanted, missing = (0, traded or nulls * scattered) if session else (wanted, max(0, traded - wanted))
                why = "though there was volume"
            else:
                missing = max(0, nulls - wanted) or nulls * scattered
                why = "though it is warm"
            if nulls < wanted:
                early = _candles(wanted - nulls)
                sentences.append(f"{who}: {name} has a value at {early} of {day}, before it is warm. {_remedy(day)}")
            elif missing:
                sentences.append(f"{who}: {name} is NULL at {_candles(missing)} of {day}, {why}. {_remedy(day)}")
    return sentences


def _scattered(row: Mapping[str, Any], name: str) -> bool:
    """Return whether a NULL comes after a value."""
    null, value = row[f"null_{name}_at"], row[f"value_{name}_at"]
    return null is not None and value is not None and null > value


def _candles(number: int) -> str:
    return f"{number} candle{'s' if number > 1 else ''}"


def _remedy(day: date) -> str:
    return f"Materialise indicators of {day} again with `recompute`."
