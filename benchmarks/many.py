"""Many markets: a day of 3 to 500 of them, a refresh of 100, and long intervals, each by a command in a new process.

    python -m benchmarks.many [--large] [--rounds 3]      # --large: also 500 markets, and 1,000 of 1d over ten years

Seeded candles, nine tables, checks, fsync on. Before a command is timed, the markets have a history of five days.
Equality first: the measured days are computed again from stored candles and compared bit by bit. One day of 3 and of 60
markets also runs in this process, to count the statements that it sends.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.day import prove, run, timed
from benchmarks.harness import PACKAGES, machine, save, show
from benchmarks.markets import TYPES, World, declared, publish, published, symbol, world
from benchmarks.throwaway import checkpoint
from benchmarks.year import fresh

FIRST = date(2022, 1, 1)
WARM = 5
PROGRAM = str(Path(sys.executable).with_name("algobot"))
Row = tuple[str, float, str]


def cleared(at: World) -> None:
    """Forget the klines of the scenario before."""
    shutil.rmtree(at.klines)
    (at.klines / "spot").mkdir(parents=True)


def one_day(at: World, markets: int, strategies: int, rounds: int) -> float:
    """Seconds of `algobot backfill DAY` for minutes of so many markets: the median of days that follow each other."""
    cleared(at)
    publish(at.klines, range(markets), FIRST, WARM + rounds)
    at.declare(declared(markets, strategies, FIRST))
    with fresh(at.server, "many") as (instance, store, _):
        run(instance, FIRST, FIRST + timedelta(days=WARM - 1))
        seconds = []
        for number in range(rounds):
            checkpoint(at.server)
            seconds.append(timed([PROGRAM, "backfill", str(FIRST + timedelta(days=WARM + number))]))
        prove(store, FIRST + timedelta(days=WARM), FIRST + timedelta(days=WARM + rounds - 1))
    return statistics.median(seconds)


def refreshes(at: World, markets: int, rounds: int) -> tuple[float, float]:
    """Seconds of `algobot refresh` with five new minutes for every market, and with nothing new."""
    cleared(at)
    days = WARM + 1
    frames = {number: published(FIRST, days, number) for number in range(markets)}
    at.declare(declared(markets, len(TYPES), FIRST))
    known = days * 1440 - 5 * (rounds + 1)

    def show_rows(rows: int) -> None:
        for number, frame in frames.items():
            frame.head(rows).write_parquet(at.klines / "spot" / f"{symbol(number)}-1m-2022-01.parquet")

    with fresh(at.server, "refreshes") as (instance, store, _):
        show_rows(known)
        run(instance, FIRST, FIRST + timedelta(days=days - 1))
        grown, nothing = [], []
        for number in range(rounds):
            checkpoint(at.server)
            show_rows(known + 5 * (number + 1))
            grown.append(timed([PROGRAM, "refresh"]))
            nothing.append(timed([PROGRAM, "refresh"]))
        prove(store, FIRST + timedelta(days=days - 1), FIRST + timedelta(days=days - 1))
    return statistics.median(grown), statistics.median(nothing)


def long_intervals(at: World, markets: int, interval: str, minutes: int, days: int, strategies: int) -> float:
    """Seconds of `algobot backfill` of so many days of candles of a long interval, into an empty database."""
    cleared(at)
    for number in range(markets):
        frame = published(FIRST, days, number, minutes=minutes)
        frame.write_parquet(at.klines / "spot" / f"{symbol(number)}-{interval}-all.parquet")
    at.declare(
        declared(markets, strategies, FIRST)
        .replace("interval: 1m", f"interval: {interval}")
        .replace("USDT 1m", f"USDT {interval}")
    )
    last = FIRST + timedelta(days=days - 1)
    with fresh(at.server, "long") as (_, store, _):
        seconds = timed([PROGRAM, "backfill", str(FIRST), str(last)])
        prove(store, last, last)
    return seconds


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the statements that this process sends, COPY included."""
    number = [0]
    execute, begin = psycopg.Cursor.execute, psycopg.Cursor.copy

    def executed(cursor: psycopg.Cursor, *args: Any, **options: Any) -> Any:
        number[0] += 1
        return execute(cursor, *args, **options)

    def copied(cursor: psycopg.Cursor, *args: Any, **options: Any) -> Any:
        number[0] += 1
        return begin(cursor, *args, **options)

    psycopg.Cursor.execute, psycopg.Cursor.copy = executed, copied  # type: ignore[method-assign,assignment]
    try:
        yield number
    finally:
        psycopg.Cursor.execute, psycopg.Cursor.copy = execute, begin  # type: ignore[method-assign]


def statements(at: World, markets: int) -> int:
    """The number of statements of one run over a day of so many markets."""
    cleared(at)
    publish(at.klines, range(markets), FIRST, WARM + 1)
    at.declare(declared(markets, 1, FIRST))
    with fresh(at.server, "counted") as (instance, _, _):
        run(instance, FIRST, FIRST + timedelta(days=WARM - 1))
        with counted() as number:
            run(instance, FIRST + timedelta(days=WARM), FIRST + timedelta(days=WARM))
    return number[0]


def main() -> None:
    """Every row, printed and saved."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--large", action="store_true")
    options.add_argument("--smallest", action="store_true", help="two markets each, to see that it runs")
    given = options.parse_args()
    state = machine(PACKAGES)
    began = datetime.now()
    rows: list[Row] = []

    def add(what: str, seconds: float, target: str) -> None:
        rows.append((what, seconds, target))
        print(f"   {what}: {seconds:.1f} s (target {target})", flush=True)

    small = given.smallest
    with world() as at:
        counts = {markets: statements(at, markets) for markets in ((2, 3) if small else (3, 60))}
        print(f"   statements of a run by markets: {counts}", flush=True)
        for markets, kinds, target in ((60, 1, "6 s"), (3, 1, "3.5 s"), (100, 3, "10 s")):
            seconds = one_day(at, 2 if small else markets, kinds, given.rounds)
            add(f"a day of {markets} markets of 1m, {kinds} strategies each", seconds, target)
        grown, nothing = refreshes(at, 2 if small else 100, given.rounds)
        add("refresh of 100 markets with five new minutes each", grown, "4 s")
        add("refresh with nothing new", nothing, "2.5 s")
        hours = long_intervals(at, 1, "1h", 60, 40 if small else 790, 2)
        add("26 months of one market of 1h, two strategies", hours, "5 s")
        if given.large:
            add("a day of 500 markets of 1m, 3 strategies each", one_day(at, 500, 3, 1), "50 s")
            add("1,000 markets of 1d, ten years, one strategy", long_intervals(at, 1000, "1d", 1440, 3650, 1), "240 s")
    print(show("Many markets", ["work", "seconds", "target"], [[what, f"{s:.1f}", to] for what, s, to in rows]))
    figures = [{"work": what, "seconds": round(seconds, 2), "target": target} for what, seconds, target in rows]
    seconds = (datetime.now() - began).total_seconds()
    path = save("many", {"machine": state, "rounds": given.rounds, "statements": counts, "rows": figures})
    print(f"Written to {path} after {seconds:.0f} s.")


if __name__ == "__main__":
    main()
