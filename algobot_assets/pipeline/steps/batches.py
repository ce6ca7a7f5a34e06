"""Compute the stale days of many markets and strategies: plan a batch, read its rows at once, compute, and yield.

The chains advance together, one calendar piece each, so that one statement reads a day of a thousand markets as well as
a month of a few.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import TypeVar

from algobot_assets.errors import AlgobotError, ArchivedError
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.pipeline.steps.handed_on import hand_on
from algobot_assets.pipeline.steps.incremental import Chain, Rows, StaleDays
from algobot_assets.pipeline.steps.reads import Reader
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.schema.windows import content_columns
from algobot_assets.store.lineage.digests import day_digests
from algobot_assets.store.writer import row_days

T = TypeVar("T")
#: Rows read at once, all tables together; about 100 bytes each.
_ROWS = 400_000


def compute_chains(run: TableRun, chains: Sequence[Chain], reader: Reader) -> Iterator[WindowFrame]:
    """Yield the frames of all stale days. A chain that fails is reported and ends; the others go on."""
    waiting = deque(StaleDays(chain, recompute=run.options.recompute) for chain in chains)
    for chain in chains:
        run.start(chain.computable, chain.strategy)
    began: set[int] = set()
    while waiting:
        batch: list[tuple[StaleDays, list[date], Sequence[Rows]]] = []
        asked: set[Rows] = set()
        height = 0
        while waiting and height < _ROWS:
            stale = waiting.popleft()
            piece = attempt(run, stale.next_piece)
            if piece:
                reads = stale.chain.reads(piece)
                batch.append((stale, piece, reads))
                height += sum(reader.height(rows) for rows in reads if rows not in asked)
                asked.update(reads)
        reader.fetch(asked)
        for stale, piece, _ in batch:
            try:
                frame = _with_digests(stale.compute(piece))
                run.refuse_archived(frame)
            except ArchivedError as error:
                run.succeeded -= id(stale) not in began
                run.skip(str(error))
                continue
            except AlgobotError as error:
                run.skip(str(error))
                continue
            began.add(id(stale))
            run.day_counts.computed += len(piece)
            yield frame
            waiting.append(stale)


def attempt(run: TableRun, work: Callable[[], T]) -> T | None:
    """Return the result of ``work``; if it raises an error written for people, report a skipped market instead."""
    try:
        return work()
    except AlgobotError as error:
        run.skip(str(error))
        return None


def _with_digests(item: WindowFrame) -> WindowFrame:
    """Add the digests of the frame's days, and hand its rows on to the tables that follow."""
    if item.window.rule.time != "timestamp":
        return item
    digests = day_digests(item.frame, content_columns(item.window.table), row_days(item.window, item.frame))
    hand_on(item.window, item.frame, digests)
    return replace(item, digests=digests)
