"""Where a long backfill of many markets spends its time: stages, and CPU of PostgreSQL beside that of the run.

    python -m benchmarks.backfill [--markets 10] [--days 730]

Seeded minutes from files, three strategies a market, all nine tables in one run, fsync on; ten markets and two years
are 10.5 million candles, 12 GB and a quarter of an hour. Equality first: the last days of every market and table are
computed again from stored candles and compared bit by bit. Stages are own times, and writers work beside the rest, so
that they add up to more than the clock; the CPU seconds are of all threads and processes.
"""

from __future__ import annotations

import argparse
import time
from datetime import timedelta
from typing import Any

from benchmarks.day import FIRST, STAGES, prove, run
from benchmarks.end_to_end import WATCHED
from benchmarks.harness import PACKAGES, Stages, family_cpu, machine, peak_bytes, reset_peak, save, show
from benchmarks.markets import TYPES, World, declared, publish, world
from benchmarks.year import fresh

#: Days that are computed again.
PROVED = 7


def measure(at: World, markets: int, days: int) -> dict[str, Any]:
    """Seconds of the run, of its stages, and of CPU here and in the server's processes."""
    publish(at.klines, range(markets), FIRST, days)
    at.declare(declared(markets, len(TYPES), FIRST))
    last = FIRST + timedelta(days=days - 1)
    stages = Stages()
    with fresh(at.server, "backfill") as (instance, store, _), stages.watching(*WATCHED):
        reset_peak()
        here, there, began = time.process_time(), family_cpu(at.server.pid), time.perf_counter()
        run(instance, FIRST, last)
        seconds, peak = time.perf_counter() - began, peak_bytes()
        here, there = time.process_time() - here, family_cpu(at.server.pid) - there
        own = {name: stages.seconds(name) for name in STAGES}
        own["Dagster"] = seconds - stages.seconds("asset", inside=True) - stages.seconds("checks", inside=True)
        prove(store, last - timedelta(days=PROVED - 1), last)
    candles = markets * days * 1440
    return {
        "markets": markets,
        "days": days,
        "candles": candles,
        "seconds": seconds,
        "candles per second": candles / seconds,
        "peak MB": peak / 2**20,
        "CPU of PostgreSQL, s": there,
        "CPU of the run, s": here,
        "share of PostgreSQL in CPU": there / (here + there),
        "COPY's share of a core": own["copy"] / seconds,
        "stages": own,
    }


def main() -> None:
    """Run, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--markets", type=int, default=10)
    options.add_argument("--days", type=int, default=730)
    given = options.parse_args()
    state = machine(PACKAGES)
    with world() as at:
        result = measure(at, given.markets, given.days)
    plain = {name: value for name, value in result.items() if name != "stages"}
    print(show("One backfill", ["figure", "value"], [[name, f"{value:,.2f}"] for name, value in plain.items()]))
    ranked = sorted(result["stages"].items(), key=lambda item: -item[1])
    cells = [[name, f"{seconds:.1f}", f"{seconds / result['seconds']:.0%}"] for name, seconds in ranked]
    print(show("Own time of its stages", ["stage", "s", "of the clock"], cells))
    print(f"Written to {save('backfill', {'machine': state, 'rounds': 1, **result})}.")


if __name__ == "__main__":
    main()
