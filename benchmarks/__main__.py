"""All benchmarks one after the other, and the tables of docs/performance.md and docs/scaling.md from their figures.

    python -m benchmarks [--table]      # --table: only the tables, from benchmarks/results

Each runs in a process of its own; benchmarks.scale is not among them, its latest figures are in the tables. A row says
what was measured, ours, what it is compared with, their ratio and the
target that was set; a figure whose answers differ is never there, because its benchmark ends first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import growth
from benchmarks.harness import RESULTS

NAMES = (
    "end_to_end",
    "windows",
    "lineage",
    "feed",
    "compute",
    "sweep",
    "retention",
    "client_cache",
    "day",
    "many",
    "workers",
)
#: Take the better part of an hour, and up to fifty gigabytes; run by themselves.
LONG = ("backfill", "scale")
#: Everything runs on so many cores, so that figures of different machines can be compared.
CORES = 2
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
SCALING = DOCUMENT.with_name("scaling.md")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
Row = tuple[str, str, str, str, str]


def end_to_end(result: dict[str, Any]) -> Iterator[Row]:
    """A year of minutes through all nine tables."""
    middle = result["medians"]
    speed = f"{middle['candles per second']:,.0f} candles/s"
    what = f"{result['days']} days of minutes, three strategies, nine tables"
    yield what, f"{speed}, {middle['seconds']:.1f} s", "", "", ""
    yield "of it Dagster's own", f"{middle['stage Dagster']:.1f} s", "", "", "below 5 s"
    yield "of it the asset checks", f"{middle['stage checks']:.1f} s", "", "", ""
    yield "peak memory", f"{middle['peak GB']:.2f} GB", "", "", "below 2 GB"
    again, fraction = f"{middle['second run seconds']:.1f} s", f"{middle['second run fraction']:.2f}"
    yield "the same run again, nothing written", again, "the first", fraction, ""
    for table in ("market_data", "indicators", "signals", "trade_history", "performance_metrics", "backtest_results"):
        mine, bare = middle[f"write {table}"], middle[f"copy {table}"]
        yield f"writing {table}", f"{mine:.2f} s", f"bare COPY {bare:.2f} s", f"{mine / bare:.2f}", "at most 1.5"
        if floor := middle.get(f"floor {table}"):
            yield f"writing {table}", f"{mine:.2f} s", f"floor {floor:.2f} s", f"{mine / floor:.2f}", ""


def many(result: dict[str, Any]) -> Iterator[Row]:
    """Many markets, each row by a command in a new process."""
    for row in result["rows"]:
        yield row["work"], f"{row['seconds']:.1f} s", "", "", row["target"]
    counts = ", ".join(f"{number} for {markets} markets" for markets, number in result["statements"].items())
    yield "statements of a run over one day", counts, "", "", "equal, but for batches"


def windows(result: dict[str, Any]) -> Iterator[Row]:
    """One month of each large table."""
    for table, row in result["tables"].items():
        for name, mine, theirs, target in (
            ("write", "write", "bare COPY", "at most 1.4"),
            ("read", "read", "COPY TO", "at most 1.3"),
            ("read by connectorx", "connectorx", "COPY TO", "at most 1.6"),
        ):
            ratio = f"{row[f'{mine} / {theirs}']:.2f}"
            yield f"a month of {table}, {name}", f"{row[mine]:.2f} s", f"{theirs} {row[theirs]:.2f} s", ratio, target
        again, gain = f"{row['write again']:.3f} s", f"{row['write / write again']:.0f}"
        yield f"a month of {table}, written again unchanged", again, f"first {row['write']:.2f} s", gain, "at least 5"


def lineage(result: dict[str, Any]) -> Iterator[Row]:
    """What lineage costs."""
    figures = result["figures"]
    share = f"{figures['share of the run']:.1%}"
    yield "lineage, share of a run", share, "the same without", f"{figures['write ratio']:.2f}", "at most 5 %"


def feed(result: dict[str, Any]) -> Iterator[Row]:
    """A year of minutes from archives, and REST."""
    middle = result["medians"]
    speed = f"{middle['candles per second']:,.0f} candles/s"
    bare, ratio = f"unzip + parse + COPY {middle['bare seconds']:.2f} s", f"{middle['ratio to bare']:.2f}"
    yield "a year from monthly archives into PostgreSQL", speed, bare, ratio, "150,000; at most 1.3"
    peer = f"get_historical_klines {result['plain']:,.0f}"
    yield "REST", f"{result['rest']:,.0f} candles/s", peer, f"{result['rest'] / result['plain']:.1f}", ""
    if "years" in result:
        yield "peak memory of several years", f"{result['years']['peak MB']:.0f} MB", "", "", "below 500 MB"


def compute(result: dict[str, Any]) -> Iterator[Row]:
    """Indicators and one backtest."""
    ta = result["indicators"]
    mine, peer = f"{ta['ours'] * 1000:.0f} ms", f"TA-Lib, three of them {ta['talib'] * 1000:.0f} ms"
    yield "four indicators with states", mine, peer, f"{ta['ours'] / ta['talib']:.1f}", "at most 3"
    other = result["vectorbt"]
    if other:
        for name, mine, their, target in (
            ("one backtest, its figures", result["figures"], other["seconds"], "at least 20"),
            ("the same with each trade and day", result["backtest"], other["seconds"], ""),
            ("the latter in a new process", result["cold"], other["cold"], ""),
        ):
            yield name, f"{mine:.3f} s", f"vectorbt {their:.3f} s", f"{their / mine:.1f}", target


def sweep(result: dict[str, Any]) -> Iterator[Row]:
    """Combinations of parameters."""
    for name, grid in result["grids"].items():
        rate, limit = f"{grid['rate'] / 1e6:,.0f} M candles/s", f"bare loop {grid['limit'] / 1e6:,.0f} M"
        yield f"sweep, {name}", rate, limit, f"{grid['rate'] / grid['limit']:.2f}", "at least 250 M"
    if result.get("vectorbt"):
        yield "the same by vectorbt", f"{result['vectorbt']['rate'] / 1e6:,.1f} M candles/s", "", "", ""


def retention(result: dict[str, Any]) -> Iterator[Row]:
    """Months that leave."""
    middle = result["medians"]
    drop, delete = f"{middle['drop, s'] * 1000:.0f} ms", f"DELETE {middle['DELETE, s']:.1f} s"
    yield f"dropping a month of {result['rows']:,} rows", drop, delete, f"{middle['DELETE / drop']:.0f}", "at least 50"


def client_cache(result: dict[str, Any]) -> Iterator[Row]:
    """Repeated reads of the client."""
    for name, question in result["questions"].items():
        peer = f"database {question['database ms']:.0f} ms"
        yield f"client, {name}", f"{question['memory ms']:.1f} ms", peer, f"{question['gain']:.1f}", ""


def day(result: dict[str, Any]) -> Iterator[Row]:
    """One more day."""
    short, long, many = result["by history"][0], result["by history"][-1], result["many"]
    what = f"one more day of a market, three strategies, after {long['history, days']:,} days"
    peer = f"after {short['history, days']} days {short['seconds']:.2f} s"
    yield what, f"{long['seconds']:.2f} s", peer, f"{result['longest / shortest']:.2f}", "constant"
    what = f"a day of {many['markets']} markets, {many['strategies']} strategies"
    yield what, f"{many['seconds']:.1f} s", "", "", "seconds"
    start = f"of it start-up {many['of it start-up, s']:.1f} s"
    yield "the same in a new process", f"{many['new process, s']:.1f} s", start, "", ""


def workers(result: dict[str, Any]) -> Iterator[Row]:
    """Runs side by side."""
    middle = result["medians"]
    what = f"{middle['candles']:,.0f} candles by two runs at once, two cores"
    two, one = f"{middle['2 workers, s']:.1f} s", f"one run {middle['1 workers, s']:.1f} s"
    yield what, two, one, f"{middle['speed-up']:.2f}", ""
    two, one = f"{middle['computed by 2, s']:.1f} s", f"one run {middle['computed by 1, s']:.1f} s"
    yield "what follows from candles by two runs, by markets", two, one, f"{middle['computed speed-up']:.2f}", ""


def backfill(result: dict[str, Any]) -> Iterator[Row]:
    """Two years of ten markets."""
    what = f"{result['days']} days of {result['markets']} markets, three strategies each, nine tables"
    speed = f"{result['candles per second']:,.0f} candles/s, {result['seconds']:,.0f} s"
    yield what, speed, "", "", ""
    share = f"{result['share of PostgreSQL in CPU']:.2f}"
    peer = f"of the run {result['CPU of the run, s']:,.0f} s"
    yield "of it CPU of PostgreSQL", f"{result['CPU of PostgreSQL, s']:,.0f} s", peer, share, ""


def scale(result: dict[str, Any]) -> Iterator[Row]:
    """What grows with the number of candles, and what does not."""
    small, large = result["sizes"][0], result["sizes"][-1]
    of = f"at {large['candles'] / 1e6:.0f} M candles"
    for name, what, target in (
        ("catalogue, ms", "catalogue", "below 100 ms"),
        ("latest signal, ms", "latest signal of a strategy", ""),
        ("latest signals of all strategies, ms", "latest signals of all strategies, SQL", ""),
        ("trades of a strategy, ms", "trades of a strategy", ""),
        ("candles with indicators, a month, ms", "candles with indicators, a month of minutes", ""),
        ("a month of a market, s", "writing a market's month of minutes", "constant"),
        ("a day of two markets, s", "a day of two markets, all tables", "constant"),
        ("archiving a month, s", "archiving a month of all markets", "linear"),
        ("dropping the month, ms", "dropping the month", ""),
    ):
        unit, places = ("ms", 1) if name.endswith("ms") else ("s", 2)
        peer = f"{small['candles'] / 1e6:.0f} M {small[name]:,.{places}f} {unit}"
        yield f"{what}, {of}", f"{large[name]:,.{places}f} {unit}", peer, f"{large[name] / small[name]:.1f}", target


ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {name: globals()[name] for name in (*NAMES, *LONG)}


def table() -> str:
    """The latest figures of every benchmark as Markdown."""
    lines = ["| what | ours | compared with | ratio | target |", "|---|---|---|---|---|"]
    notes = []
    for name in (*NAMES, *LONG):
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        lines += ["| " + " | ".join(row) + " |" for row in ROWS[name](result)]
        state, rounds = result["machine"], result["rounds"]
        notes.append(
            f"`{name}`: {rounds if isinstance(rounds, int) else len(rounds)} rounds, {state['cores']} cores "
            f"({state['processor']}), load before {state['load_before'][0]}"
        )
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def main() -> None:
    """Run them, then write the tables between the marks of the documents."""
    if "--table" not in sys.argv:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # what it starts, servers too, inherits it
        for name in NAMES:
            print(f"== {name}", flush=True)
            if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
                sys.exit(f"benchmarks.{name} failed; the table is left as it was.")
    insert(DOCUMENT, BEGIN, END, table())
    for name, part in growth.PARTS.items():
        insert(SCALING, f"<!-- {name} -->", f"<!-- end of {name} -->", "\n".join(part()))
    print(f"Written to {DOCUMENT} and {SCALING}.")


def insert(document: Path, begin: str, end: str, what: str) -> None:
    """Replace what stands between two marks of a document."""
    text = document.read_text()
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    document.write_text(f"{before}\n{what}\n{after}")


if __name__ == "__main__":
    main()
