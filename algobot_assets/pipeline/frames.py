"""What passes between assets and the IO manager: frames of windows on the way out, tables on the way in.

An asset yields one ``WindowFrame`` per market or strategy and piece of days (intervals.piece_end: a month, or a year
of long intervals), so a run never holds more; the next asset gets a ``Table``, a handle on what is stored, and reads
from it what it needs. No Dagster here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl
import psycopg

from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage import DayInputs

#: Stores, in the transaction of a window's rows, what belongs to them.
Record = Callable[[psycopg.Connection], None]


@dataclass(frozen=True)
class WindowFrame:
    """Rows of one window, with what each of its days was computed from.

    ``days`` may leave out days of the window; those are not touched. ``record`` runs in the transaction of the
    rows, for what must be stored with them (sources, gaps). ``digests``: rows and digest of each day, where they are
    known already.
    """

    window: Window
    frame: pl.DataFrame
    days: Sequence[DayInputs]
    record: Record | None = None
    digests: Mapping[date, tuple[int, bytes]] | None = None


class Frames:
    """The frames of one asset in one run, made one at a time as they are written."""

    def __init__(self, frames: Iterable[WindowFrame]) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[WindowFrame]:
        return iter(self._frames)


#: Days of the largest joined window: a year of one strategy's trades is small, a transaction has a fixed cost.
_JOINED_DAYS = 366


def joined(frames: Iterable[WindowFrame]) -> Iterator[WindowFrame]:
    """The same rows in fewer windows: consecutive windows of one strategy become one.

    For tables that are cut by day and not by leaf. What the frames record is recorded in their order.
    """
    waiting: dict[tuple, WindowFrame] = {}
    for item in frames:
        held = waiting.pop(item.window.key, None)
        if held is not None:
            days = (item.window.end - held.window.first).days
            if held.window.end != item.window.first or days > _JOINED_DAYS:
                yield held
            else:
                item = WindowFrame(
                    held.window.of(held.window.first, item.window.end),
                    pl.concat([held.frame, item.frame]),
                    [*held.days, *item.days],
                    _both(held.record, item.record),
                )
        waiting[item.window.key] = item
    yield from waiting.values()


def _both(one: Record | None, other: Record | None) -> Record | None:
    """Run two records one after the other."""
    if one is None or other is None:
        return one or other

    def record(connection: psycopg.Connection) -> None:
        one(connection)
        other(connection)

    return record
