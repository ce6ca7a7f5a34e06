"""Overlap computing and writing: frames are collected into batches, and two are written while others are computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.store.connection import Store
from algobot_assets.store.writer import Written, write_windows

#: Batches written at the same time. Two keep a server of two cores busy; each is one more batch held in memory.
WRITERS = 2
#: Batches that may be unfinished when the next frame is requested.
UNFINISHED = WRITERS
#: A batch is written when it has so many rows, or rows and days of lineage together; 13 columns take 200 bytes a row.
BATCH_ROWS = 120_000


@dataclass(frozen=True)
class Done:
    """A written batch of frames, with its row counts, the errors of skipped frames, and the seconds it took."""

    items: Sequence[WindowFrame]
    written: Written
    seconds: float


def write_frames(store: Store, frames: Iterable[WindowFrame]) -> Iterator[Done]:
    """Write frames in batches, each in one transaction; yield the results in the order of the frames.

    Batches of one month are written one after the other, because writers of one month lock each other out; those of
    other months in parallel. If two still meet, one waits. After a frame that could not be written, later frames of
    its market or strategy are dropped: they start from a state that is not stored. After an error of a whole batch no
    further batch is begun, those being written are finished, and the error is raised. A window is always stored whole
    or not at all.
    """
    writers = [ThreadPoolExecutor(1, thread_name_prefix=f"writer {number}") for number in range(WRITERS)]
    waiting: deque[tuple[list[WindowFrame], Future[tuple[Written, float]]]] = deque()
    stopped: set[tuple[str, str, str, int]] = set()

    def finished(least: int) -> Iterator[Done]:
        while len(waiting) > least or (waiting and waiting[0][1].done()):
            items, future = waiting.popleft()
            done = Done(items, *future.result())
            stopped.update(items[position].window.key for position in done.written.errors)
            yield done

    def write(items: list[WindowFrame]) -> tuple[Written, float]:
        began = time.perf_counter()
        items[:] = [item for item in items if item.window.key not in stopped]
        return (write_windows(store, items) if items else Written()), time.perf_counter() - began

    try:
        for items in _batches(frames):
            first = items[0].window.first
            waiting.append((items, writers[(first.year * 12 + first.month) % WRITERS].submit(write, items)))
            yield from finished(UNFINISHED)
        yield from finished(0)
    finally:
        for one in writers:
            one.shutdown(wait=False, cancel_futures=True)
        for one in writers:
            one.shutdown(wait=True)


def _batches(frames: Iterable[WindowFrame]) -> Iterator[list[WindowFrame]]:
    """Collect frames until they have enough rows, or a frame begins in another month or year.

    A batch of one beginning leaves the next one free to be written beside it.
    """
    batch: list[WindowFrame] = []
    size = 0
    for item in frames:
        if batch and (size >= BATCH_ROWS or _beginning(item) != _beginning(batch[0])):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.frame.height + len(item.days)
    if batch:
        yield batch


def _beginning(item: WindowFrame) -> tuple[int, int]:
    return item.window.first.year, item.window.first.month
