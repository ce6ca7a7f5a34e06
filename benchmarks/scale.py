"""1, 5 and 50 million candles: what a month, a day, the catalogue, retention and the usual questions cost at each size.

    python -m benchmarks.scale [--millions 1 5 50] [--keep-room 8]

A size is a number of markets with twelve months of minutes each, their indicators and the signals of one strategy. The
first, seeded market is fetched and computed by the product; the others are made of it inside the database by INSERT ..
SELECT, with its lineage, and keys and references are made and checked afterwards. All that is measured goes through the
product. A size for which the disk has no room is skipped, and the result says so. README.md says how to read the
figures.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.audit.staleness import due
from algobot_assets.cli import runs
from algobot_assets.client import Client
from algobot_assets.feed import klines
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import days_between, midnight, months_between, next_month
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.month_partitions import ensure_months, leaf, vacuum_months
from algobot_assets.store.reader import read_window
from algobot_assets.store.retention import months
from algobot_assets.store.writer import write_window
from benchmarks import queries
from benchmarks.harness import PACKAGES, Stages, machine, save, show
from benchmarks.markets import World, declared, publish, published, symbol, world
from benchmarks.throwaway import TEMPLATE, checkpoint, environment
from benchmarks.year import fresh

FIRST, END = date(2024, 1, 1), date(2025, 1, 1)
DAYS = (END - FIRST).days
PER_MARKET = DAYS * 1440
#: Markets that trade on: those whose days are run by Dagster; the same at every size.
LIVE = 2
#: Days run after the stored year: the first makes everything warm, the others are measured.
RUN_DAYS = 4
#: Months of one more market that are written to measure ingestion.
INGESTED = 5
#: Bytes that a candle with its indicators and one signal needs, with keys and the log of writing it.
ROOM = 900
#: The database with the first market.
ONE = "template_one_market"


def first_market(at: World) -> None:
    """The template of all sizes: one market's year, its indicators and signals, as the product writes them."""
    publish(at.klines, [0], FIRST, DAYS)
    at.declare(declared(LIVE, 1, FIRST, END))
    at.server.ensure_database(ONE, template=TEMPLATE)
    names = {"ALGOBOT_DATABASE": ONE, "ALGOBOT_DAGSTER_DATABASE": f"dagster_{ONE}"}
    with environment(**names), runs.instance(Settings()) as instance:
        for first, last, tables in (
            (FIRST, END, ("configurations", "strategies", "risk_parameters")),
            (FIRST, END - timedelta(days=1), MONTHLY),
        ):
            result = runs.materialise(instance, first, last, tables)
            if not result.success:
                sys.exit(f"The first market could not be made: {result.error or result.skipped}")
    at.server.drop_database(f"dagster_{ONE}")
    shutil.rmtree(at.klines)
    publish(at.klines, range(LIVE), END, RUN_DAYS)


def fill(store: Store, markets: int, say: Callable[[str], None]) -> None:
    """The other markets, made of the first one: their rows month by month, and their lineage."""
    names = [symbol(number) for number in range(1, markets)]
    ensure_months(store, [END])
    with store.database.connect(autocommit=True) as connection:
        for setting in ("synchronous_commit = off", "jit = off", "maintenance_work_mem = '1GB'"):
            connection.execute(f"SET {setting}")
        strategies = [row[0] for row in connection.execute("SELECT id FROM strategies ORDER BY id")]
        owners = [strategies[number % len(strategies)] for number in range(1, markets)]
        for month in months_between(FIRST, END):
            with connection.transaction():
                _month(connection, month, names, owners)
            say(f"{month:%Y-%m}")
        for table in MONTHLY:
            connection.execute(
                f"""SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"""
            )
        connection.execute(
            """INSERT INTO lineage
               SELECT (jsonb_populate_record(l, jsonb_build_object('symbol', m.symbol) || CASE l.table_name
                       WHEN 'signals' THEN jsonb_build_object('strategy_id', m.strategy) ELSE '{}' END)).*
                 FROM unnest(%s::text[], %s::bigint[]) AS m (symbol, strategy), lineage AS l
                WHERE l.table_name = ANY(%s) AND l.symbol = %s""",
            (names, owners, list(MONTHLY), symbol(0)),
        )
        connection.execute(
            """INSERT INTO listings (symbol, "interval", first_open)
               SELECT m, l."interval", l.first_open FROM unnest(%s::text[]) AS m, listings AS l WHERE l.symbol = %s""",
            (names, symbol(0)),
        )
        connection.execute("VACUUM (ANALYZE) lineage")
    for table in MONTHLY:
        vacuum_months(store, table, months_between(FIRST, END))


def _month(connection: psycopg.Connection, month: date, names: list[str], owners: list[int]) -> None:
    """Fill the leaves of a month while they have no keys; then they are attached again, which makes and checks them."""
    if not names:
        return
    leaves = {table: leaf(table, month) for table in MONTHLY}
    for table in reversed(MONTHLY):
        connection.execute(f"ALTER TABLE {table} DETACH PARTITION {leaves[table]}")
        constraints = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = ANY(%s)",
            (leaves[table], ["p", "u", "f"]),
        ).fetchall()
        for (name,) in sorted(constraints, key=lambda row: not row[0].endswith("_fkey")):
            connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                sql.Identifier(leaves[table]), sql.Identifier(name)))  # fmt: skip
    # ids go on where the newest ones end, market by market in the order of time
    connection.execute(
        f"""CREATE TEMP TABLE shape ON COMMIT DROP AS
            SELECT row_number() OVER (ORDER BY c."timestamp") AS n, c.*, i.ema, i.rsi, i.atr, i.vwap, s.signal
              FROM {leaves["market_data"]} AS c JOIN {leaves["indicators"]} AS i USING ("timestamp")
              JOIN {leaves["signals"]} AS s USING ("timestamp") ORDER BY 1"""
    )
    highest = connection.execute("SELECT max(id) FROM shape").fetchone()[0]
    rows = connection.execute("SELECT count(*) FROM shape").fetchone()[0]
    # months do not share numbers: a month of every market has its own hundred million
    base = (month.year * 12 + month.month) * 100_000_000
    assert highest < base and rows * len(names) < 100_000_000
    number = f"{base} + (m.number - 1) * {rows} + s.n"
    candle = ", ".join(f's."{name}"' for name in schema_of("market_data") if name not in ("symbol", "interval"))
    source = """FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS m (symbol, strategy, number),
                      LATERAL (SELECT * FROM shape ORDER BY n) AS s"""
    for table, columns, values in (
        ("market_data", candle.replace("s.", ""), candle),
        ("indicators", '"timestamp", market_data_id, ema, rsi, atr, vwap',
         f's."timestamp", {number}, s.ema, s.rsi, s.atr, s.vwap'),
        ("signals", '"timestamp", market_data_id, strategy_id, signal',
         f's."timestamp", {number}, m.strategy, s.signal'),
    ):  # fmt: skip
        connection.execute(
            f"""INSERT INTO {leaves[table]} (id, symbol, "interval", {columns})
                SELECT {number}, m.symbol, s."interval", {values} {source}""",
            (names, owners),
        )
    for table in MONTHLY:
        name = leaves[table]
        connection.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(table), sql.Identifier(name), midnight(month), midnight(next_month(month))
            )
        )
        if table != "market_data":
            connection.execute(
                f"""ALTER TABLE {name} ADD CONSTRAINT {name}_market_data_fkey FOREIGN KEY (market_data_id, "timestamp")
                    REFERENCES {leaves["market_data"]} (id, "timestamp") ON DELETE CASCADE"""
            )


def timed(call: Callable[[], Any], times: int = 1) -> float:
    """Median seconds of so many calls."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def sizes(store: Store) -> dict[str, float]:
    """Gigabytes and rows of the tables, keys included."""
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT p.relname, sum(pg_table_size(c.oid)), sum(pg_indexes_size(c.oid)), sum(c.reltuples)
                 FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                 JOIN pg_class AS p ON p.oid = i.inhparent
                WHERE p.relname = ANY(%s) AND p.relkind = 'p' GROUP BY 1""",
            (list(MONTHLY),),
        ).fetchall()
        lineage_bytes = connection.execute("SELECT pg_total_relation_size('lineage')").fetchone()[0]
    figures: dict[str, float] = {}
    for table, heap, keys, count in rows:
        figures[f"{table}, GB"] = float(heap + keys) / 1e9
        figures[f"{table}, bytes a row"] = float(heap + keys) / float(count)
    return {**figures, "lineage, GB": lineage_bytes / 1e9}


def ingestion(store: Store, markets: int) -> float:
    """Median seconds of one more market's month of candles, each into a month that has all the others."""
    market, took = symbol(markets), []
    frame = klines.from_published(published(FIRST, DAYS, 11), market, "1m")
    for month in months_between(FIRST, END)[-INGESTED - 1 :]:
        window = Window("market_data", month, next_month(month), market, "1m")
        rows = frame.filter(pl.col("timestamp").is_between(*window.bounds, closed="left"))
        days = [DayInputs(day, midnight(day + timedelta(days=1))) for day in days_between(month, next_month(month))]
        began = time.perf_counter()
        write_window(store, window, rows, days)
        took.append(time.perf_counter() - began)
        if not read_window(store, window).equals(rows.sort("timestamp").select(list(schema_of("market_data")))):
            sys.exit("What was stored is not what was written; no figure is worth anything.")
    return statistics.median(took[1:])  # the first prepares statements


def daily(instance: dg.DagsterInstance) -> list[float]:
    """Seconds of the Dagster run of each day after the stored year, all nine tables, for the live markets."""
    took = []
    for number in range(RUN_DAYS):
        day = END + timedelta(days=number)
        began = time.perf_counter()
        result = runs.materialise(instance, day, day)
        took.append(time.perf_counter() - began)
        if not result.success or result.skipped:
            sys.exit(f"The run of {day} failed: {result.error or result.skipped}")
    return took


def retention(store: Store, markets: int) -> dict[str, float]:
    """The oldest month to the archive: seconds of the whole, and of the drop with its commit."""
    stages = Stages()
    checkpointed = Window("market_data", FIRST, next_month(FIRST), symbol(0), "1m")
    before = read_window(store, checkpointed)
    with stages.watching((months, "_drop", "drop", None)):
        began = time.perf_counter()
        moved = months.archive_month(store, FIRST)
        total = time.perf_counter() - began
    expected = 3 * markets * (next_month(FIRST) - FIRST).days * 1440
    if moved is None or moved.rows != expected or not read_window(store, checkpointed).equals(before):
        sys.exit(f"The archive holds {moved and moved.rows} rows of {expected}, or others; no figure counts.")
    return {
        "archiving a month, s": total,
        "archiving, rows/s": moved.rows / total,
        "dropping the month, ms": stages.seconds("drop") * 1000,
    }


def measured(at: World, millions: float) -> dict[str, float]:
    """All figures of one size, in a database of its own."""
    markets = max(LIVE, round(millions * 1e6 / PER_MARKET))
    print(f"-- {markets} markets, {markets * PER_MARKET:,} candles", flush=True)
    figures: dict[str, float] = {"markets": markets, "candles": markets * PER_MARKET}
    with fresh(at.server, "scale", template=ONE) as (instance, store, _):
        began = time.perf_counter()
        fill(store, markets, lambda month: print(f"   {month} {time.perf_counter() - began:.0f} s", flush=True))
        figures["filling, s"] = time.perf_counter() - began
        checkpoint(at.server)
        figures |= sizes(store)
        found = due(store)
        if found is not None:
            sys.exit(f"What was generated is stale ({found}), so no run would look like one; nothing is measured.")
        figures["stale partitions, ms"] = timed(lambda: due(store), 3) * 1000
        figures["catalogue, ms"] = timed(lambda: store.retrying(catalogue.markets, "Reading the markets"), 15) * 1000
        took = daily(instance)
        figures["a day of two markets, s"] = statistics.median(took[1:])
        checkpoint(at.server)
        figures["a month of a market, s"] = ingestion(store, markets)
        queries.add_trades(store, FIRST, DAYS)
        with Client(store.database) as client:
            figures |= queries.measure(client, store, symbol(1), f"{symbol(0)}_ema_cross", next_month(FIRST))
        checkpoint(at.server)
        figures |= retention(store, markets)
    return figures


#: What is shown, and by which law it grows: the exponent of its growth between the smallest and the largest size.
SHOWN = (
    "candles", "market_data, GB", "indicators, GB", "signals, GB", "a month of a market, s", "a day of two markets, s",
    "catalogue, ms", "stale partitions, ms", "latest signal, ms", "latest signals of all strategies, ms",
    "trades of a strategy, ms", "candles with indicators, a month, ms", "archiving a month, s",
    "dropping the month, ms",
)  # fmt: skip


def exponent(small: dict[str, float], large: dict[str, float], name: str) -> float:
    """By which power of the number of candles a figure grows: 0 constant, 1 linear."""
    return math.log(large[name] / small[name]) / math.log(large["candles"] / small["candles"])


def law(power: float) -> str:
    """The growth law nearest to a measured exponent."""
    return "constant" if power < 0.15 else "linear" if power > 0.85 else "below linear"


def report(results: list[dict[str, float]]) -> str:
    """The figures as text."""
    rows = []
    for name in SHOWN:
        cells = [f"{r[name]:,.0f}" if r[name] >= 100 else f"{r[name]:.3g}" for r in results]
        power = f"{exponent(results[0], results[-1], name):.2f}" if len(results) > 1 else ""
        rows.append([name, *cells, power])
    return show("By number of candles", ["figure", *(f"{r['candles'] / 1e6:.1f} M" for r in results), "exponent"], rows)


def main() -> None:
    """Fill and measure each size, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--millions", type=float, nargs="+", default=[1, 5, 50])
    options.add_argument("--keep-room", type=float, default=8, help="gigabytes of the disk that stay free")
    given = options.parse_args()
    state, left_out = machine(PACKAGES), []
    results = []
    with world() as at:
        first_market(at)
        for millions in sorted(given.millions):
            free = shutil.disk_usage(at.folder).free - given.keep_room * 1e9
            if free < millions * 1e6 * ROOM:
                need = f"{millions * ROOM / 1000:.0f} GB are needed and {free / 1e9:.0f} free"
                left_out.append(f"{millions:g} million: {need}")
                print(left_out[-1])
                continue
            results.append(measured(at, millions))
    print(report(results))
    path = save(
        "scale",
        {
            "candles": "one seeded market, the others made of it in the database",
            "machine": state,
            "rounds": 1,
            "left out": left_out,
            "sizes": [{name: round(value, 4) for name, value in result.items()} for result in results],
            "laws": {name: law(exponent(results[0], results[-1], name)) for name in SHOWN[1:] if len(results) > 1},
        },
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()
