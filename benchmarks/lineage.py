"""What lineage costs: every window of one run written with it and without it, side by side.

    python -m benchmarks.lineage [--rounds 5] [--days 60]

Each round is one Dagster run over all nine tables into fresh databases on a throw-away server with fsync on. Each
batch is written twice: by the product, and into a second database by the same writer without digests, recorded days
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
from algobot_assets.pipeline.candles import parts
from algobot_assets.pipeline.steps import batches, incremental, parallel_writes
from algobot_assets.store import writer
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import NOTHING
from algobot_assets.store.lineage.recorded import Lineages
from algobot_assets.store.server import control as servers
from algobot_assets.store.writer import WindowFrame
from benchmarks.harness import PACKAGES, Stages, machine, medians, save, show
from benchmarks.year import COPIED, FIRST, counted, fresh, prepared

#: Lineage outside of the writer.
OUTSIDE = (
    (Lineages, "read", "reading recorded days", None),
    (incremental, "state_digest", "digests of states", None),
    (batches, "day_digests", "digests of computed rows", None),
    (parts, "day_digests", "digests of fetched candles", None),
)


def counted_days(frame: pl.DataFrame, _: Sequence[str], days: pl.Series) -> dict[date, tuple[int, bytes]]:
    """Rows of each day, as day_digests gives them, with no digest."""
    return {day: (rows, NOTHING) for day, rows in days.value_counts().iter_rows()} if frame.height else {}


@contextmanager
def without_lineage() -> Iterator[None]:
    """Within the block the writer keeps no lineage."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(writer, "day_digests", counted_days))
        stack.enter_context(mock.patch.object(writer, "read_windows", return_value={}))
        for name in ("write", "clear_dirty"):
            stack.enter_context(mock.patch.object(lineage, name))
        yield


class Twice:
    """In place of the product's write_windows: the batch with lineage, and without it in the second database."""

    def __init__(self, bare: Store, stages: Stages) -> None:
        self.bare, self.stages, self._turn = bare, stages, 0
        self.with_lineage, self.seconds = dict.fromkeys(COPIED, 0.0), dict.fromkeys(COPIED, 0.0)

    def write_windows(self, store: Store, items: Sequence[WindowFrame]) -> Any:
        """Both writes, timed apart; which goes first alternates."""
        self._turn += 1
        table = items[0].window.table
        first = self._turn % 2 == 0 and table in COPIED
        if first:
            self._without(table, items)
        began = time.perf_counter()
        written = writer.write_windows(store, items)
        if table in COPIED:
            self.with_lineage[table] += time.perf_counter() - began
        if not first:
            self._without(table, items)
        return written

    def _without(self, table: str, items: Sequence[WindowFrame]) -> None:
        plain = [WindowFrame(item.window, item.frame, item.days) for item in items]
        with self.stages.stage("bare", table), without_lineage():
            began = time.perf_counter()
            writer.write_windows(self.bare, plain)
            if table in COPIED:
                self.seconds[table] += time.perf_counter() - began


def one_round(server: servers.Server, number: int, days: int) -> dict[str, float]:
    """One run in fresh databases."""
    last = FIRST + timedelta(days=days - 1)
    with fresh(server, f"lineage_{number}", beside=True) as (instance, store, bare):
        stages = Stages()
        twice = Twice(bare, stages)
        with (
            stages.watching(*OUTSIDE),
            mock.patch.multiple(parallel_writes, WRITERS=1, UNFINISHED=0),
            mock.patch.object(parallel_writes, "write_windows", twice.write_windows),
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
