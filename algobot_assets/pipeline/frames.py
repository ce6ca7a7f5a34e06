"""Define the frames that a table's function yields and the writer stores.

A table yields one ``WindowFrame`` per market or strategy and piece of days (intervals.piece_end: a month, or a year
of long intervals), so a run never holds more; the next asset gets a ``Table``, a handle on the stored rows, and reads
only the ones it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl
import psycopg

from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage import DayInputs

#: Stores further records in the transaction of a window's rows.
BeforeCommit = Callable[[psycopg.Connection], None]


@dataclass(frozen=True)
class WindowFrame:
    """Rows of one window, with the inputs of each day.

    Days of the window that are missing in ``days`` are not touched. ``before_commit`` runs in the transaction of the
    rows and stores their further records (sources, gaps). ``digests``: number of rows and digest of each day, if they
    are known already.
    """

    window: Window
    frame: pl.DataFrame
    days: Sequence[DayInputs]
    before_commit: BeforeCommit | None = None
    digests: Mapping[date, tuple[int, bytes]] | None = None


class Frames:
    """The frames of one table in one run, made one at a time as they are written."""

    def __init__(self, frames: Iterable[WindowFrame]) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[WindowFrame]:
        return iter(self._frames)


#: Days of the largest joined window: a year of one strategy's trades is small, a transaction has a fixed cost.
_JOINED_DAYS = 366


def joined(frames: Iterable[WindowFrame]) -> Iterator[WindowFrame]:
    """Join consecutive windows of one strategy.

    For tables without monthly partitions. Each ``before_commit`` runs in the windows' order.
    """
    waiting: dict[tuple[str, str, str, int], WindowFrame] = {}
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
                    _both(held.before_commit, item.before_commit),
                )
        waiting[item.window.key] = item
    yield from waiting.values()


def _both(one: BeforeCommit | None, other: BeforeCommit | None) -> BeforeCommit | None:
    """Return a function that runs both, one after the other."""
    if one is None or other is None:
        return one or other

    def run_both(connection: psycopg.Connection) -> None:
        one(connection)
        other(connection)

    return run_both
