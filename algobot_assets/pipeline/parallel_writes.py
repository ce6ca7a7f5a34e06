"""Windows written side by side: while one is written, the next one is computed and may be written too.

Here belongs which windows may go together and how many are held; how one window is written is the store's affair,
what is in it the assets'.
"""

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
LANES = 2
#: Frames that may be unfinished when the next one is asked for.
HELD = LANES


@dataclass(frozen=True)
class Done:
    """A window that has been written: what it was, what writing did, and how many seconds it took."""

    item: WindowFrame
    written: Written
    seconds: float


def write_frames(store: Store, frames: Iterable[WindowFrame]) -> Iterator[Done]:
    """Write each frame as its own transaction; results in the order of the frames.

    Windows of one month go one after the other, because writers of one month lock each other out; those of
    neighbouring months, or years for long intervals, go side by side; where two meet all the same one waits. The
    first error ends it: what is being written is finished, what has not begun is not, and the error is raised. A
    window is there whole or not at all either way.
    """
    lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"writer {number}") for number in range(LANES)]
    waiting: deque[tuple[WindowFrame, Future[tuple[Written, float]]]] = deque()
    try:
        for item in frames:
            waiting.append((item, lanes[_number(item.window) % LANES].submit(_write, store, item)))
            while len(waiting) > HELD or (waiting and waiting[0][1].done()):
                yield _done(*waiting.popleft())
        while waiting:
            yield _done(*waiting.popleft())
    finally:
        for lane in lanes:
            lane.shutdown(wait=False, cancel_futures=True)
        for lane in lanes:
            lane.shutdown(wait=True)


def _number(window: Window) -> int:
    """Counts months, or years where the window is longer than a month: neighbours differ by one."""
    first = window.first
    return first.year if (window.end - first).days > 31 else first.year * 12 + first.month


def _write(store: Store, item: WindowFrame) -> tuple[Written, float]:
    began = time.perf_counter()
    written = write_window(store, item.window, item.frame, item.days, item.record, item.digests)
    return written, time.perf_counter() - began


def _done(item: WindowFrame, future: Future[tuple[Written, float]]) -> Done:
    return Done(item, *future.result())
