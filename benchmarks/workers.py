"""Runs one after the other and two at once, and what a candle costs the worker and the server: the model's figures.

    python -m benchmarks.workers [--markets 4] [--months 6] [--computed 2] [--rounds 3]

Candles are split at months; what follows from them, by markets (the first ``--computed`` months, one strategy each).

Seeded minutes from files, fsync on, server and workers on the same cores. Time counts from the first run's start to the
last one's end, without the code server that is started before. Equality first: both ways must record the same digests
for every day. The costs are CPU seconds of a run in this process and of the server's processes, per candle.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from datetime import date, timedelta
from typing import Any

import dagster as dg

from algobot_assets.cli import runs
from algobot_assets.cli.parallel_runs import COMPUTED, compute_in_parallel, fetch_in_parallel
from algobot_assets.declared.state_file import StateFile
from algobot_assets.schema.intervals import next_month
from algobot_assets.schema.tables import NINE
from algobot_assets.store.connection import Store
from benchmarks.harness import PACKAGES, family_cpu, machine, medians, save, show
from benchmarks.markets import World, declared, publish, world
from benchmarks.throwaway import checkpoint
from benchmarks.year import fresh

FIRST = date(2024, 1, 1)


def wal(store: Store) -> int:
    """The server's position in its log, bytes."""
    with store.transaction() as connection:
        return int(connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").fetchone()[0])


def digests(store: Store) -> list[tuple[Any, ...]]:
    """What lineage recorded of every day."""
    with store.transaction() as connection:
        return connection.execute(
            'SELECT table_name, symbol, "interval", day, rows, output_digest, strategy_id FROM lineage '
            "ORDER BY 1, 2, 3, 7, 4"
        ).fetchall()


def by_workers(at: World, last: date, workers: int, number: int) -> tuple[float, list[tuple[Any, ...]]]:
    """Seconds of so many runs at once, and what they recorded."""
    with fresh(at.server, f"by_{workers}_{number}") as (instance, store, _):
        done = fetch_in_parallel(instance, store, FIRST, last, workers)
        return took(instance, done), digests(store)


def took(instance: dg.DagsterInstance, done: list[str]) -> float:
    """Seconds from the first run's start to the last one's end."""
    stats = [instance.get_run_stats(run) for run in done]
    return max(s.end_time for s in stats) - min(s.start_time for s in stats)


def by_markets(at: World, last: date, workers: int, number: int) -> tuple[float, list[tuple[Any, ...]]]:
    """Seconds of so many runs at once over what follows from candles that are stored, and what they recorded."""
    with fresh(at.server, f"markets_{workers}_{number}") as (instance, store, _):
        before = runs.materialise(instance, FIRST, last, [table for table in NINE if table not in COMPUTED])
        if not before.success:
            sys.exit(f"The run failed: {before.error}")
        checkpoint(at.server)
        done = compute_in_parallel(instance, store, StateFile().load(), FIRST, last, workers)
        return took(instance, done), digests(store)


def costs(at: World, last: date, number: int) -> tuple[dict[str, float], list[tuple[Any, ...]]]:
    """What a candle costs in one process: its wall time, its CPU here and in the server, and bytes of log."""
    with fresh(at.server, f"alone_{number}") as (instance, store, _):
        before = family_cpu(at.server.pid), wal(store), time.process_time(), time.perf_counter()
        result = runs.materialise(instance, FIRST, last, ["market_data"])
        wall, here = time.perf_counter() - before[3], time.process_time() - before[2]
        if not result.success or result.skipped:
            sys.exit(f"The run failed: {result.error or result.skipped}")
        recorded = digests(store)
        candles = sum(row[4] for row in recorded)
        micro = 1e6 / candles
        figures = {
            "candles": candles,
            "one process, µs a candle": wall * micro,
            "worker CPU, µs a candle": here * micro,
            "server CPU, µs a candle": (family_cpu(at.server.pid) - before[0]) * micro,
            "log, bytes a candle": (wal(store) - before[1]) / candles,
        }
        checkpoint(at.server)
        return figures, recorded


def model(figures: dict[str, float], workers: int, cores: int) -> tuple[float, float]:
    """Candles a second of so many workers on machines of their own and a server of so many cores: what the workers
    would bring, each waiting for the server while that computes, and what the server takes."""
    here, there = figures["worker CPU, µs a candle"], figures["server CPU, µs a candle"]
    return workers * 1e6 / (here + there), cores * 1e6 / there


def one_round(at: World, last: date, computed: date, number: int) -> dict[str, float]:
    """Figures of one round; SystemExit where the ways record different days."""
    figures, recorded = costs(at, last, number)
    for workers in (1, 2):
        figures[f"{workers} workers, s"], found = by_workers(at, last, workers, number)
        if found != recorded:
            sys.exit(f"{workers} workers recorded other days than one process; no figure is worth anything.")
    figures["speed-up"] = figures["1 workers, s"] / figures["2 workers, s"]
    by_one = None
    for workers in (1, 2):
        figures[f"computed by {workers}, s"], found = by_markets(at, computed, workers, number)
        by_one = by_one or found
        if found != by_one:
            sys.exit(f"{workers} workers computed other rows than one; no figure is worth anything.")
    figures["computed speed-up"] = figures["computed by 1, s"] / figures["computed by 2, s"]
    return figures


def after(months: int) -> date:
    """The last of so many months."""
    end = FIRST
    for _ in range(months):
        end = next_month(end)
    return end - timedelta(days=1)


def main() -> None:
    """Run the rounds, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--markets", type=int, default=4)
    options.add_argument("--months", type=int, default=6)
    options.add_argument("--computed", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    state = machine(PACKAGES)
    last, computed = after(given.months), after(given.computed)
    with world() as at:
        publish(at.klines, range(given.markets), FIRST, (last - FIRST).days + 1)
        at.declare(declared(given.markets, 1, FIRST))
        rounds = [one_round(at, last, computed, number) for number in range(given.rounds)]
    middle = medians(rounds)
    print(show("Runs side by side", ["figure", "median"], [[k, f"{v:,.2f}"] for k, v in middle.items()]))
    rows = []
    for workers, cores in ((1, 2), (8, 8), (100, 32)):
        bring, take = model(middle, workers, cores)
        limit = "workers" if bring < take else "server"
        rows.append([f"{workers} workers, {cores} cores", f"{bring:,.0f}", f"{take:,.0f}", limit])
    print(show("Model, candles/s", ["", "workers bring", "server takes", "limit"], rows))
    path = save(
        "workers",
        {
            "candles": "seeded, from files",
            "machine": state,
            "rounds": given.rounds,
            "medians": {name: round(value, 4) for name, value in middle.items()},
            "speed-up of each round": [round(item["speed-up"], 2) for item in rounds],
            "spread": round(statistics.pstdev([item["speed-up"] for item in rounds]), 3),
        },
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()
