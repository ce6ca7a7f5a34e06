"""One run of one table: its days, its options, and which markets it had to skip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from logging import Logger

from algobot_assets.declared.state_file import StateFile
from algobot_assets.errors import AlgobotError, ArchivedError, WindowError
from algobot_assets.feed.open import CandleFeed
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import Tally
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.store import writer
from algobot_assets.store.connection import Store


@dataclass(frozen=True)
class RunOptions:
    """What a run may be asked for beyond its days; a table reads the options that concern it."""

    markets: Sequence[str] = ()
    """Only these markets, written "BTCUSDT 1m"; empty: all."""
    recompute: bool = False
    """Compute days again even if nothing they were computed from has changed."""
    from_source: bool = False
    """Fetch days again that are stored complete, and take what the source says now."""
    check_archives: bool = False
    """Compare the checksums of loaded files with those published now, and fetch replaced files again."""
    rewrite: bool = False
    """Correct declared versions that are stored with other values."""


@dataclass
class TableRun:
    """One table in one run: the days [first, end), what it works with, and whom it had to leave out."""

    table: str
    store: Store
    first: date
    end: date
    log: Logger
    options: RunOptions = field(default_factory=RunOptions)
    feed: CandleFeed = field(default_factory=CandleFeed)
    state: StateFile = field(default_factory=StateFile)
    refusals: list[str] = field(default_factory=list)
    proceeded: int = 0
    tally: Tally = field(default_factory=Tally)

    def refuse(self, sentence: str) -> None:
        """Leave a market or strategy out; the sentence says why and what to do, and fails the run's check."""
        self.refusals.append(sentence)
        self.log.warning(sentence)

    def frames(self, made: Iterator[WindowFrame]) -> Iterator[WindowFrame]:
        """The frames of the run; WindowError at the end where nothing could proceed at all."""
        yield from made
        if self.refusals and not self.proceeded:
            raise WindowError("\n".join(self.refusals))

    def takes(self, symbol: str, interval: str) -> bool:
        """Whether the run is about this market."""
        return not self.options.markets or f"{symbol} {interval}" in self.options.markets

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Say which of the markets that were asked for are none of ``known``."""
        for name in sorted(set(self.options.markets) - set(known)):
            self.refuse(f"{self.table} knows no market {name!r}; write one as {min(known, default='BTCUSDT 1m')!r}.")


def side_by_side(streams: Sequence[Iterator[WindowFrame]]) -> Iterator[WindowFrame]:
    """One frame of each stream after the other, until all have ended.

    Strategies of one market go on month by month together, so that a month of candles is read once for all.
    """
    left = list(streams)
    while left:
        for stream in tuple(left):
            frame = next(stream, None)
            if frame is None:
                left.remove(stream)
            else:
                yield frame


def attempt(run: TableRun, frames: Iterator[WindowFrame]) -> Iterator[WindowFrame]:
    """The frames of one market; an error meant for people leaves the market out, and the others go on.

    So does a frame that would change rows of an archived month.
    """
    began = False
    try:
        for item in frames:
            refuse_archived(run.store, item)
            began = True
            yield item
    except ArchivedError as error:
        run.proceeded -= not began
        run.refuse(str(error))
    except AlgobotError as error:
        run.refuse(str(error))


def refuse_archived(store: Store, item: WindowFrame) -> None:
    """ArchivedError where the frame would change rows of an archived month, so that only its market is left out."""
    if item.window.table in MONTHLY:
        with store.transaction() as connection:
            writer.refuse_archived(connection, item.window, item.frame, item.days)


def upstream_of(body: Callable[..., Iterator[WindowFrame]]) -> tuple[str, ...]:
    """The tables that a table's function reads: its parameters but for the run."""
    return tuple(name for name in inspect.signature(body).parameters if name != "run")
