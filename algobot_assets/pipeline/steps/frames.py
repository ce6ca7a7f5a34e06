"""Define the frames that a table's function yields and the writer stores.

A table yields one ``WindowFrame`` per market or strategy and piece of days (intervals.piece_end: a month, or a year
of long intervals), so a run never holds more; the next asset gets a ``Table``, a handle on the stored rows, and reads
only the ones it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import polars as pl

from algobot_assets.errors import AlgobotError
from algobot_assets.store.writer import Record, WindowFrame

__all__ = ["Frames", "Record", "WindowFrame", "joined"]

#: Days of the largest joined window: a year of one strategy's trades is small, a transaction has a fixed cost.
_JOINED_DAYS = 366


class Frames:
    """The frames of one table in one run, made one at a time as they are written.

    ``refused`` is told of each frame that could not be written, with the error; without it, the first such error is
    raised once the others are written. ``finish`` is called in the end.
    """

    def __init__(
        self,
        frames: Iterable[WindowFrame],
        refused: Callable[[WindowFrame, AlgobotError], None] | None = None,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._frames = frames
        self._refused = refused
        self._finish = finish
        self._error: AlgobotError | None = None

    def __iter__(self) -> Iterator[WindowFrame]:
        return iter(self._frames)

    def refuse(self, item: WindowFrame, error: AlgobotError) -> None:
        """Report a frame that could not be written."""
        if self._refused is None:
            self._error = self._error or error
        else:
            self._refused(item, error)

    def finish(self) -> None:
        """Report the end of writing. Raises the error of a frame that nobody else was told of."""
        if self._error is not None:
            raise self._error
        self._finish()


def joined(frames: Iterable[WindowFrame]) -> Iterator[WindowFrame]:
    """Join consecutive windows of one strategy.

    For tables without monthly partitions. The records of the windows keep their order.
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
                    [*held.records, *item.records],
                )
        waiting[item.window.key] = item
    yield from waiting.values()
