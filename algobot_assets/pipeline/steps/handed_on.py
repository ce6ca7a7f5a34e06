"""Hand the frames that a run has just computed on to the next table, so that they need not be read back.

A frame is found by the digests that lineage records for its days. Equal digests mean equal rows, so a frame that was
never stored, or was changed since, is not found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import date, timedelta
from threading import Lock

import polars as pl

from algobot_assets.schema.intervals import consecutive
from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage.digests import NOTHING
from algobot_assets.store.writer import DayDigests

_DAY = timedelta(days=1)
#: The columns that later tables read; the others are not kept.
_KEPT = {
    "market_data": ("timestamp", "open", "high", "low", "close", "volume"),
    "indicators": ("timestamp", "ema", "rsi", "atr", "vwap"),
    "signals": ("timestamp", "signal"),
}
#: Bytes of all frames kept; a year of one market's minutes takes 50 MB.
_MOST_BYTES = 200_000_000

Key = tuple[str, str, str, int]


class _Kept:
    """Frames by market or strategy, with the digests of their days; the oldest make room for new ones."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._order: OrderedDict[tuple[Key, date], int] = OrderedDict()
        self._frames: dict[Key, dict[date, tuple[Window, pl.DataFrame, DayDigests]]] = {}
        self._bytes = 0

    def add(self, window: Window, frame: pl.DataFrame, digests: DayDigests) -> None:
        with self._lock:
            self._drop(window.key, window.first)
            size = int(frame.estimated_size())
            self._order[window.key, window.first] = size
            self._frames.setdefault(window.key, {})[window.first] = window, frame, digests
            self._bytes += size
            while self._bytes > _MOST_BYTES:
                self._drop(*next(iter(self._order)))

    def _drop(self, key: Key, first: date) -> None:
        if (key, first) in self._order:
            self._bytes -= self._order.pop((key, first))
            del self._frames[key][first]

    def of(self, key: Key) -> list[tuple[Window, pl.DataFrame, DayDigests]]:
        with self._lock:
            return sorted(self._frames.get(key, {}).values(), key=lambda item: item[0].first)


_kept = _Kept()


def hand_on(window: Window, frame: pl.DataFrame, digests: DayDigests) -> None:
    """Keep a computed frame, with the number of rows and the digest of each of its days."""
    columns = _KEPT.get(window.table)
    if columns is not None:
        _kept.add(window, frame.select(columns), digests)


def handed_on(window: Window, outputs: Mapping[date, bytes]) -> pl.DataFrame | None:
    """Return the rows of ``window``, or None if they are not kept. ``outputs``: the recorded digest of each day."""
    parts = []
    left = dict(outputs)
    for kept, frame, digests in _kept.of(window.key):
        first, end = max(kept.first, window.first), min(kept.end, window.end)
        days = [day for day in left if first <= day < end]
        if not days or any(digests.get(day, (0, NOTHING))[1] != left[day] for day in days):
            continue
        for run in consecutive(days):  # days between them come from another frame, or are not recorded
            lo, hi = window.of(run[0], run[-1] + _DAY).bounds
            parts.append(frame.filter(pl.col("timestamp").is_between(lo, hi, closed="left")))
        for day in days:
            del left[day]
    return pl.concat(parts).sort("timestamp") if parts and not left else None
