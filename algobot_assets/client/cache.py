"""Cache frames that a client has read, within a limit of memory; the least recently used go first.

Each frame is stored with a key that changes whenever its rows do. Threads can share one cache.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

#: Open and end of the newest candle of each table or strategy of a query; None if none is stored.
Newest = tuple[tuple[datetime, datetime] | None, ...]


@dataclass(frozen=True)
class CacheInfo:
    """Statistics of the cache: queries answered from it, not answered, and not cacheable (their rows were changed by
    hand); frames and bytes held; bytes allowed (0: the cache is off)."""

    hits: int
    misses: int
    uncacheable: int
    frames: int
    bytes: int
    limit: int

    @property
    def hit_ratio(self) -> float:
        """Share of the queries that were answered from the cache; 0 before the first."""
        queries = self.hits + self.misses + self.uncacheable
        return self.hits / queries if queries else 0.0

    @property
    def passed_by(self) -> int:
        """Former name of `uncacheable`, kept for one version."""
        return self.uncacheable


class FrameCache:
    """Frames by query, each with the key of its rows when it was read."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes of frames to keep; 0 keeps none."""
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[Hashable, pl.DataFrame, int]] = OrderedDict()
        self._newest: dict[Hashable, tuple[Hashable, Newest]] = {}
        self._bytes = self._hits = self._misses = self._uncacheable = 0
        self._lock = threading.Lock()

    @property
    def is_on(self) -> bool:
        """Whether the cache keeps anything."""
        return self._limit > 0

    def get(self, query: Hashable, key: Hashable | None) -> pl.DataFrame | None:
        """Return the frame of the query if its rows still have this key; the key None never matches."""
        with self._lock:
            held = self._kept.get(query)
            if key is None:
                self._uncacheable += 1
            elif held is not None and held[0] == key:
                self._hits += 1
                self._kept.move_to_end(query)
                return held[1].clone()  # shares the data, but changes to the caller's frame do not reach this one
            else:
                self._misses += 1
            if held is not None:
                self._evict(query)
            return None

    def put(self, query: Hashable, key: Hashable | None, frame: pl.DataFrame) -> None:
        """Keep the frame, unless it is larger than a quarter of the limit and would evict too much."""
        size = int(frame.estimated_size())
        if key is None or size > self._limit / 4:
            return
        with self._lock:
            if query in self._kept:
                self._evict(query)
            self._kept[query] = (key, frame.clone(), size)
            self._bytes += size
            while self._bytes > self._limit:
                self._evict(next(iter(self._kept)))

    def get_newest(self, query: Hashable, key: Hashable | None) -> Newest | None:
        """Return the cached newest candles of a query if its rows still have this key."""
        with self._lock:
            held = self._newest.get(query)
            return held[1] if held is not None and key is not None and held[0] == key else None

    def put_newest(self, query: Hashable, key: Hashable | None, value: Newest) -> None:
        """Keep the newest candles: a few bytes per market or strategy, which the limit does not count."""
        if key is not None:
            with self._lock:
                self._newest[query] = (key, value)

    def clear(self) -> None:
        """Drop all frames; the counts stay."""
        with self._lock:
            self._kept.clear()
            self._newest.clear()
            self._bytes = 0

    def info(self) -> CacheInfo:
        """Return the statistics so far."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._uncacheable, len(self._kept), self._bytes, self._limit)

    def _evict(self, query: Hashable) -> None:
        self._bytes -= self._kept.pop(query)[2]
