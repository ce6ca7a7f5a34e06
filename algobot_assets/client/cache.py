"""A bounded memory of frames that a client has read, each under a key that changes whenever its rows do.

What the key is made of is the affair of those who ask; here frames are kept, counted and given up, the longest unused
first. Safe to share between threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class CacheInfo:
    """How the memory did: questions answered from it and not, questions that could not be kept, frames and bytes held,
    bytes allowed (0: it is off)."""

    hits: int
    misses: int
    passed_by: int
    frames: int
    bytes: int
    limit: int

    @property
    def hit_ratio(self) -> float:
        """Share of the questions that were answered from memory; 0 before the first."""
        asked = self.hits + self.misses + self.passed_by
        return self.hits / asked if asked else 0.0


class FrameCache:
    """Frames by question, each with the key of its rows when it was read."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes of frames that are kept; 0 keeps none."""
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[Hashable, pl.DataFrame, int]] = OrderedDict()
        self._newest: dict[Hashable, tuple[Hashable, Hashable]] = {}
        self._bytes = self._hits = self._misses = self._passed_by = 0
        self._lock = threading.Lock()

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._limit > 0

    def get(self, question: Hashable, key: Hashable | None) -> pl.DataFrame | None:
        """The frame of the question if its rows still have this key; None as a key never matches."""
        with self._lock:
            held = self._kept.get(question)
            if key is None:
                self._passed_by += 1
            elif held is not None and held[0] == key:
                self._hits += 1
                self._kept.move_to_end(question)
                return held[1].clone()  # shares the data; what the caller does to the frame stays his
            else:
                self._misses += 1
            if held is not None:
                self._give_up(question)
            return None

    def put(self, question: Hashable, key: Hashable | None, frame: pl.DataFrame) -> None:
        """Keep the frame; one that is larger than a quarter of the limit would push out too much, and is not kept."""
        size = int(frame.estimated_size())
        if key is None or size > self._limit / 4:
            return
        with self._lock:
            if question in self._kept:
                self._give_up(question)
            self._kept[question] = (key, frame.clone(), size)
            self._bytes += size
            while self._bytes > self._limit:
                self._give_up(next(iter(self._kept)))

    def newest(self, question: Hashable, key: Hashable | None) -> Hashable | None:
        """The remembered answer to how new the data of a question is, if its key is still this one."""
        with self._lock:
            held = self._newest.get(question)
            return held[1] if held is not None and key is not None and held[0] == key else None

    def put_newest(self, question: Hashable, key: Hashable | None, value: Hashable) -> None:
        """Remember it; a few bytes for each market or strategy, which the limit does not count."""
        if key is not None:
            with self._lock:
                self._newest[question] = (key, value)

    def clear(self) -> None:
        """Forget all frames; the counts stay."""
        with self._lock:
            self._kept.clear()
            self._newest.clear()
            self._bytes = 0

    def info(self) -> CacheInfo:
        """How it did so far."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._passed_by, len(self._kept), self._bytes, self._limit)

    def _give_up(self, question: Hashable) -> None:
        self._bytes -= self._kept.pop(question)[2]
