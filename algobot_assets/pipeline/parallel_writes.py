"""Overlap computing and writing: up to two windows are written while the next is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store
from algobot_assets.store.writer import Written, write_window

#: Months written at the same time. Two keep a server of two cores busy; each is one more frame held in memory.
WRITERS = 2
#: Frames that may be unfinished when the next one is requested.
UNFINISHED = WRITERS


@dataclass(frozen=True)
class Done:
    """A written window with its row counts and the seconds it took."""

    item: WindowFrame
    written: Written
    seconds: float


def write_frames(store: Store, frames: Iterable[WindowFrame]) -> Iterator[Done]:
    """Write each frame in a transaction of its own; yield the results in the order of the frames.

    Windows of one month are written one after the other, because writers of one month lock each other out; those of
    neighbouring months, or years for long intervals, in parallel. If two still meet, one waits. After the first
    error no further window is begun, those being written are finished, and the error is raised. A window is always
    stored whole or not at all.
    """
    writers = [ThreadPoolExecutor(1, thread_name_prefix=f"writer {number}") for number in range(WRITERS)]
    waiting: deque[tuple[WindowFrame, Future[tuple[Written, float]]]] = deque()
    try:
        for item in frames:
            waiting.append((item, writers[_number(item.window) % WRITERS].submit(_write, store, item)))
            while len(waiting) > UNFINISHED or (waiting and waiting[0][1].done()):
                yield _done(*waiting.popleft())
        while waiting:
            yield _done(*waiting.popleft())
    finally:
        for one in writers:
            one.shutdown(wait=False, cancel_futures=True)
        for one in writers:
            one.shutdown(wait=True)


def _number(window: Window) -> int:
    """Return a number for the window's month, or year if it is longer than a month: neighbours differ by one."""
    first = window.first
    return first.year if (window.end - first).days > 31 else first.year * 12 + first.month


def _write(store: Store, item: WindowFrame) -> tuple[Written, float]:
    began = time.perf_counter()
    written = write_window(store, item.window, item.frame, item.days, item.before_commit, item.digests)
    return written, time.perf_counter() - began


def _done(item: WindowFrame, future: Future[tuple[Written, float]]) -> Done:
    return Done(item, *future.result())
