"""Run one table over a range of days, and report the markets it had to skip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from logging import Logger

from algobot_assets.declared.state_file import StateFile
from algobot_assets.errors import AlgobotError, ArchivedError, WindowError
from algobot_assets.feed.open import CandleFeed
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import ComputableDays, DayCounts
from algobot_assets.pipeline.skipped import Skipped, by_cause
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.store import writer
from algobot_assets.store.connection import Store


@dataclass(frozen=True)
class RunOptions:
    """Options of a run beyond its days; each table reads the ones it needs."""

    markets: Sequence[str] = ()
    """Only these markets, written "BTCUSDT 1m"; empty: all."""
    recompute: bool = False
    """Recompute days even if their inputs are unchanged."""
    from_source: bool = False
    """Fetch complete days again, and store the source's current rows."""
    check_archives: bool = False
    """Compare the checksums of loaded files with those published now, and fetch replaced files again."""
    rewrite: bool = False
    """Correct declared versions that are stored with other values."""


@dataclass
class TableRun:
    """One table in one run: the days [first, end), its resources, and the markets it had to skip.

    ``succeeded``: the number of markets or strategies that had a day to compute.
    """

    table: str
    store: Store
    first: date
    end: date
    log: Logger
    options: RunOptions = field(default_factory=RunOptions)
    feed: CandleFeed = field(default_factory=CandleFeed)
    state: StateFile = field(default_factory=StateFile)
    skipped: list[Skipped] = field(default_factory=list)
    succeeded: int = 0
    day_counts: DayCounts = field(default_factory=DayCounts)

    def skip(self, reason: Skipped | str) -> None:
        """Skip a market or strategy. The reason is reported at the end of the run and fails the run's check."""
        self.skipped.append(Skipped(self.table, reason) if isinstance(reason, str) else reason)

    def start(self, days: ComputableDays, strategy: str = "") -> None:
        """Count a market or strategy as started, and report its days that cannot be computed."""
        if days.skipped is not None:
            self.skip(replace(days.skipped, strategy=strategy))
        self.succeeded += bool(days.days)

    def frames(self, made: Iterator[WindowFrame]) -> Iterator[WindowFrame]:
        """Yield the frames of the run. WindowError at the end if no market could be computed at all."""
        yield from made
        lines = by_cause(self.skipped)
        if lines and not self.succeeded:
            raise WindowError("\n".join(lines))
        for line in lines:
            self.log.warning(line)

    def includes(self, symbol: str, interval: str) -> bool:
        """Return whether the run includes this market."""
        return not self.options.markets or f"{symbol} {interval}" in self.options.markets

    def skip_unknown(self, known: Iterable[str]) -> None:
        """Skip requested markets that are not among ``known``."""
        for name in sorted(set(self.options.markets) - set(known)):
            if end_of_trading(name.partition(" ")[0], self.end) <= self.first:
                continue  # a contract delivered before the run's days
            self.skip(
                f"{self.table} has no data for market {name!r}. "
                f"Markets are written like {min(known, default='BTCUSDT 1m')!r}."
            )


def interleave(streams: Sequence[Iterator[WindowFrame]]) -> Iterator[WindowFrame]:
    """Yield one frame of each stream in turn until all have ended.

    Strategies of one market advance month by month together, so that a month of candles is read once for all.
    """
    left = list(streams)
    while left:
        for stream in tuple(left):
            frame = next(stream, None)
            if frame is None:
                left.remove(stream)
            else:
                yield frame


def skip_on_error(run: TableRun, frames: Iterator[WindowFrame]) -> Iterator[WindowFrame]:
    """Yield the frames of one market; an error written for people skips the rest of it, not the other markets.

    A frame that would change rows of an archived month does the same.
    """
    began = False
    try:
        for item in frames:
            refuse_archived(run.store, item)
            began = True
            yield item
    except ArchivedError as error:
        run.succeeded -= not began
        run.skip(str(error))
    except AlgobotError as error:
        run.skip(str(error))


def refuse_archived(store: Store, item: WindowFrame) -> None:
    """Raise ArchivedError if the frame would change rows of an archived month, so that only its market is skipped."""
    if item.window.table in MONTHLY:
        with store.transaction() as connection:
            writer.refuse_archived(connection, item.window, item.frame, item.days)


def upstream_of(body: Callable[..., Iterator[WindowFrame]]) -> tuple[str, ...]:
    """Return the tables that a table's function reads: its parameters except the run."""
    return tuple(name for name in inspect.signature(body).parameters if name != "run")
