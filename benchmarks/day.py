"""One more day: what it costs after three months, a year and three years, and for ten markets from a new process.

    python -m benchmarks.day [--history 90 365 1095] [--markets 10] [--days 6]

Seeded minutes, three strategies a market, all nine tables, fsync on. One part runs single days of many markets, in this
process with its stages and as `algobot backfill` in a new one. The other lets one market's history grow and runs so
many single days after each length; the source is shown the day's month only, as an exchange is asked for no more.
Equality first: all measured days are computed again from stored candles and compared bit by bit.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from algobot_assets.audit.verify import verify
from algobot_assets.cli import runs
from algobot_assets.store.connection import Store
from benchmarks.end_to_end import WATCHED
from benchmarks.harness import PACKAGES, Stages, family_cpu, machine, medians, save, show
from benchmarks.markets import TYPES, World, declared, publish, symbol, world
from benchmarks.throwaway import checkpoint, environment
from benchmarks.year import fresh

FIRST = date(2022, 1, 1)
#: Days of history that the many markets have.
WARM = 10
#: What a process of the code server holds, MB; its peak would be that of the process it was forked from.
LOADED = "import algobot_assets.definitions; print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20)"
#: Shown by themselves; what is left of a run is "other".
STAGES = ("fetch", "compute", "read", "write", "copy", "verify", "digest", "lineage", "vacuum", "checks", "Dagster")


@contextmanager
def shown(at: World, day: date, markets: int) -> Iterator[None]:
    """The source has the month of ``day`` only."""
    folder = at.folder / "month"
    (folder / "spot").mkdir(parents=True)
    for number in range(markets):
        name = f"{symbol(number)}-1m-{day:%Y-%m}.parquet"
        shutil.copy(at.klines / "spot" / name, folder / "spot" / name)
    with environment(ALGOBOT_SOURCE=str(folder)):
        yield
    shutil.rmtree(folder)


def run(instance: dg.DagsterInstance, first: date, last: date) -> None:
    """One run of all tables; SystemExit where it fails."""
    result = runs.materialise(instance, first, last)
    if not result.success or result.skipped:
        sys.exit(f"The run of {first} to {last} failed: {result.error or result.skipped}")


def single_day(at: World, instance: dg.DagsterInstance, day: date) -> dict[str, float]:
    """Seconds of the day's run, of CPU in this process and the server's, and of its stages' own time."""
    stages = Stages()
    with stages.watching(*WATCHED):
        here, there, began = time.process_time(), family_cpu(at.server.pid), time.perf_counter()
        run(instance, day, day)
        total = time.perf_counter() - began
        computed = time.process_time() - here + family_cpu(at.server.pid) - there
    figures = {name: stages.seconds(name) for name in STAGES}
    figures["Dagster"] = total - stages.seconds("asset", inside=True) - stages.seconds("checks", inside=True)
    return {"seconds": total, "CPU seconds": computed, **figures}


def prove(store: Store, first: date, last: date) -> None:
    """The days computed again into nothing and compared."""
    found = [finding.difference for finding in verify(store, first, last) if finding.difference]
    if found:
        sys.exit(f"Computed again, {first} to {last} is different ({found[0]}); no figure is worth anything.")


def growing(at: World, lengths: list[int], days: int) -> list[dict[str, float]]:
    """Single days of one market after each length of history: medians per length."""
    shutil.rmtree(at.klines)
    publish(at.klines, [0], FIRST, lengths[-1] + days)
    at.declare(declared(1, len(TYPES), FIRST))
    results = []
    with fresh(at.server, "growing") as (instance, store, _):
        done = FIRST
        for length in lengths:
            end = FIRST + timedelta(days=length)
            run(instance, done, end - timedelta(days=1))
            checkpoint(at.server)
            measured = []
            for number in range(days):
                day = end + timedelta(days=number)
                with shown(at, day, 1):
                    measured.append(single_day(at, instance, day))
            done = end + timedelta(days=days)
            prove(store, end, done - timedelta(days=1))
            results.append({"history, days": length, **medians(measured[1:])})
            print(f"   {length} days: {results[-1]['seconds']:.2f} s", flush=True)
    return results


def many(at: World, markets: int, days: int) -> dict[str, Any]:
    """Single days of many markets: in this process with stages, in a new one, and what starting one costs."""
    publish(at.klines, range(markets), FIRST, WARM + 2 * days)
    at.declare(declared(markets, len(TYPES), FIRST))
    with fresh(at.server, "many") as (instance, store, _):
        run(instance, FIRST, FIRST + timedelta(days=WARM - 1))
        checkpoint(at.server)
        inside, outside, starts = [], [], []
        program = str(Path(sys.executable).with_name("algobot"))
        first = FIRST + timedelta(days=WARM)
        for number in range(days):
            day = first + timedelta(days=2 * number)
            inside.append(single_day(at, instance, day))
            outside.append(timed([program, "backfill", str(day + timedelta(days=1))]))
            starts.append(timed([sys.executable, "-c", "import algobot_assets.definitions"]))
        prove(store, first, first + timedelta(days=2 * days - 1))
    figures = medians(inside[1:])
    figures["new process, s"] = statistics.median(outside[1:])
    figures["of it start-up, s"] = statistics.median(starts[1:])
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    figures["definitions loaded, MB"] = float(loaded.stdout)
    return {"markets": markets, "strategies": markets * len(TYPES), **figures}


def timed(command: list[str]) -> float:
    """Seconds of a command; SystemExit where it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    return time.perf_counter() - began


def table(results: list[dict[str, float]], title: str, name: Callable[[dict[str, float]], str]) -> str:
    """Stages of several runs beside one another."""
    rows = [[n, *(f"{r[n]:.2f}" for r in results)] for n in ("seconds", "CPU seconds")]
    rows += [[s, *(f"{r[s]:.2f} ({r[s] / r['seconds']:.0%})" for r in results)] for s in STAGES]
    return show(title, ["", *map(name, results)], rows)


def main() -> None:
    """Both parts, printed and saved."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--history", type=int, nargs="+", default=[90, 365, 1095])
    options.add_argument("--markets", type=int, default=10)
    options.add_argument("--days", type=int, default=6)
    given = options.parse_args()
    state = machine(PACKAGES)
    with world() as at:
        ten = many(at, given.markets, given.days)
        grown = growing(at, sorted(given.history), given.days)
    # of CPU: others on the machine change the clock's seconds more than a year of history does
    ratio = grown[-1]["CPU seconds"] / grown[0]["CPU seconds"]
    print(table(grown, "One day of one market, three strategies", lambda r: f"after {r['history, days']} days"))
    print(f"After {given.history[-1]} days a day costs {ratio:.2f} of what it costs after {given.history[0]}.\n")
    print(table([ten], f"One day of {given.markets} markets, three strategies each", lambda _: "own time (share)"))
    print(f"In a new process {ten['new process, s']:.1f} s, of which start-up {ten['of it start-up, s']:.1f} s.")
    print(f"A process with the definitions loaded holds {ten['definitions loaded, MB']:.0f} MB.")
    rounded: list[dict[str, Any]] = [{k: round(v, 4) for k, v in item.items()} for item in (*grown, ten)]
    path = save(
        "day",
        {
            "candles": "seeded",
            "machine": state,
            "rounds": given.days - 1,
            "by history": rounded[:-1],
            "longest / shortest": round(ratio, 3),
            "many": rounded[-1],
        },
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()
