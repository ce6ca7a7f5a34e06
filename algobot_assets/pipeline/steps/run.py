"""Run one table over a range of days, and report the markets it had to skip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from logging import Logger

from algobot_assets.declared.state_file import StateFile
from algobot_assets.errors import AlgobotError, ArchivedError, WindowError
from algobot_assets.feed.open import CandleFeed
from algobot_assets.pipeline.skipped import Skipped, by_cause
from algobot_assets.pipeline.steps.frames import Frames, WindowFrame
from algobot_assets.pipeline.steps.incremental import ComputableDays
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.store import writer
from algobot_assets.store.archive import archived_months
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
class DayCounts:
    """The number of days that a run checked, and of those that it computed or fetched."""

    days: int = 0
    computed: int = 0


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
        self.day_counts.days += len(days.days)

    def frames(self, made: Iterator[WindowFrame]) -> Frames:
        """Return the frames of the run. In the end WindowError is raised if no market could be computed at all."""
        written: set[tuple[str, str, str, int]] = set()

        def yielded() -> Iterator[WindowFrame]:
            for item in made:
                written.add(item.window.key)
                yield item

        def refused(item: WindowFrame, error: AlgobotError) -> None:
            if item.window.key in written:
                written.discard(item.window.key)
                self.succeeded -= isinstance(error, ArchivedError) or item.window.first <= self.first
            self.skip(str(error))

        def finish() -> None:
            lines = by_cause(self.skipped)
            if lines and not self.succeeded:
                raise WindowError("\n".join(lines))
            for line in lines:
                self.log.warning(line)

        return Frames(yielded(), refused, finish)

    @cached_property
    def archived(self) -> frozenset[date]:
        """The first days of the archived months, as the run began."""
        with self.store.transaction() as connection:
            return frozenset(archived_months(connection))

    def refuse_archived(self, item: WindowFrame) -> None:
        """Raise ArchivedError if the frame would change rows of an archived month, so that its market is skipped."""
        if item.window.table in MONTHLY and self.archived.intersection(writer.months_of(item.window)):
            with self.store.transaction() as connection:
                writer.refuse_archived(connection, item.window, item.frame, item.days)

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


def upstream_of(body: Callable[..., Iterator[WindowFrame]]) -> tuple[str, ...]:
    """Return the tables that a table's function reads: its parameters except the run."""
    return tuple(name for name in inspect.signature(body).parameters if name != "run")
