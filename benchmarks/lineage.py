"""What lineage costs: every window of one run written with it and without it, side by side.

    python -m benchmarks.lineage [--rounds 5] [--days 60]

Each round is one Dagster run over all nine tables into fresh databases on a throw-away server with fsync on. Each
window is written twice: by the product, and into a second database by the same writer without digests, recorded days
and sources; which goes first alternates. To the difference come the parts of lineage outside of the writer: reading
recorded days, digests of carried states and of fetched candles. The share is of the run without the second writes.
Candles are those of benchmarks/year.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from typing import Any
from unittest import mock

import polars as pl

from algobot_assets.cli import runs
from algobot_assets.pipeline import incremental as chain
from algobot_assets.pipeline import parallel_writes as lanes
from algobot_assets.pipeline.candles import market_data as candles
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.windows import Window
from algobot_assets.store import writer
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import NOTHING
from algobot_assets.store.server import control as servers
from benchmarks.bare import BareCopy
from benchmarks.harness import PACKAGES, Stages, machine, medians, save, show
from benchmarks.year import COPIED, FIRST, counted, fresh, prepared

#: Lineage outside of the writer.
OUTSIDE = (
    (Table, "lineage", "reading recorded days", None),
    (Table, "first_day", "reading recorded days", None),
    (chain, "state_digest", "digests of states", None),
    (candles, "day_digests", "digests of fetched candles", None),
)


def counted_days(frame: pl.DataFrame, _: Sequence[str], days: pl.Series) -> dict[date, tuple[int, bytes]]:
    """Rows of each day, as day_digests gives them, with no digest."""
    return {day: (rows, NOTHING) for day, rows in days.value_counts().iter_rows()} if frame.height else {}


@contextmanager
def without_lineage() -> Iterator[None]:
    """Within the block the writer keeps no lineage."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(writer, "day_digests", counted_days))
        for name, answer in (("read", {}), ("write", None), ("clear_dirty", None)):
            stack.enter_context(mock.patch.object(lineage, name, return_value=answer))
        yield


class Twice(BareCopy):
    """In place of the product's write_window: the window with lineage, and without it in the second database."""

    def __init__(self, bare: Store, stages: Stages, end: date) -> None:
        super().__init__(bare, stages, end)
        self.with_lineage = dict.fromkeys(COPIED, 0.0)

    def write_window(
        self, store: Store, window: Window, frame: pl.DataFrame, days: Any, extra: Any = None, digests: Any = None
    ) -> Any:
        """Both writes, timed apart."""
        self._turn += 1
        first = self._turn % 2 == 0 and window.table in COPIED
        if first:
            self._without(store, window, frame, days)
        began = time.perf_counter()
        written = self._write(store, window, frame, days, extra, digests)
        if window.table in COPIED:
            self.with_lineage[window.table] += time.perf_counter() - began
        if not first:
            self._without(store, window, frame, days)
        return written

    def _without(self, store: Store, window: Window, frame: pl.DataFrame, days: Any) -> None:
        with self.stages.stage("bare", window.table):
            if window.table == "strategies":
                self._strategies(store)
            if window.table not in COPIED:
                return
            frame = self._relinked(store, window, frame)
            with without_lineage():
                began = time.perf_counter()
                self._write(self.bare, window, frame, days)
                self.seconds[window.table] += time.perf_counter() - began


def one_round(server: servers.Server, number: int, days: int) -> dict[str, float]:
    """One run in fresh databases."""
    last = FIRST + timedelta(days=days - 1)
    with fresh(server, f"lineage_{number}", beside=True) as (instance, store, bare):
        stages = Stages()
        twice = Twice(bare, stages, last + timedelta(days=1))
        with (
            stages.watching(*OUTSIDE),
            mock.patch.multiple(lanes, LANES=1, HELD=0),
            mock.patch.object(lanes, "write_window", twice.write_window),
        ):
            began = time.perf_counter()
            result = runs.materialise(instance, FIRST, last)
            total = time.perf_counter() - began - stages.seconds("bare", inside=True)
        if not result.success or result.skipped:
            sys.exit(f"The run failed: {result.error or result.skipped}")
        if counted(store) != counted(bare):
            sys.exit("The two databases hold different rows; no figure is worth anything.")
    with_lineage, without = sum(twice.with_lineage.values()), sum(twice.seconds.values())
    outside = {name: stages.seconds(name) for name in dict.fromkeys(stage for _, _, stage, _ in OUTSIDE)}
    cost = with_lineage - without + sum(outside.values())
    return {
        "seconds": total,
        "write with": with_lineage,
        "write without": without,
        "write ratio": with_lineage / without,
        **{f"ratio {table}": twice.with_lineage[table] / twice.seconds[table] for table in COPIED},
        **outside,
        "cost": cost,
        "share of the run": cost / total,
    }


def main() -> None:
    """Run the rounds and print and save their medians."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--days", type=int, default=60)
    given = options.parse_args()
    state = machine(PACKAGES)
    with prepared(given.days) as (server, _, what):
        one_round(server, 0, min(given.days, 3))  # compiles kernels, fills caches
        rounds = [one_round(server, n, given.days) for n in range(1, given.rounds + 1)]
    figures = medians(rounds)
    shares = ("write ratio", "share of the run", *(f"ratio {table}" for table in COPIED))
    rows = [[name, f"{value:.3f}" if name in shares else f"{value:.2f} s"] for name, value in figures.items()]
    print(show(f"Lineage: {given.days} days of {what}, medians of {given.rounds}", ["figure", "median"], rows))
    spread = [item["share of the run"] for item in rounds]
    print(f"Share of the run over the rounds: {min(spread):.1%} to {max(spread):.1%}")
    save("lineage", {"machine": state, "days": given.days, "candles": what, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
