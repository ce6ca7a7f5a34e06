"""A month leaving the database: dropping against DELETE, the archive's cost, and reading from it.

    python -m benchmarks.retention [--rounds 3] [--markets 4]

A month of seeded minutes of several markets with indicators and the signals of two strategies, written as runs write
them. In each round one copy of the database loses the month by DELETE, another by the product's drop; the rest is the
product's archive_month and restore_month. Equality is checked first: what is read before, from the archive and after
the restore is the same, ids included, and both ways leave nothing of the month.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
import time
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from psycopg import sql

from algobot_assets.schema.frames import PRICE, QUANTITY, UTC, schema_of
from algobot_assets.schema.intervals import days_between, midnight, next_month
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.store.archive import files_of_month, hold
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.month_partitions import vacuum_months
from algobot_assets.store.reader import read_window
from algobot_assets.store.retention import months
from algobot_assets.store.server import control as servers
from algobot_assets.store.writer import write_window
from benchmarks.harness import machine, medians, peak_bytes, reset_peak, save, show
from benchmarks.throwaway import TEMPLATE, checkpoint, throwaway

MONTH = date(2024, 1, 1)
END = next_month(MONTH)
STRATEGIES = (1, 2)
FILLED = "filled"
PACKAGES = ("polars", "psycopg", "pgpq", "fsspec")


def candles(symbol: str, seed: int) -> pl.DataFrame:
    """A month of seeded minutes with as many decimals as Binance publishes."""
    random = np.random.default_rng(seed)
    rows = (END - MONTH).days * 1440
    close = np.round(30_000 * np.exp(np.cumsum(random.normal(0, 0.0005, rows))), 2)
    opened = np.concatenate([[30_000.0], close[:-1]])
    volume = np.round(random.gamma(2.0, 10.0, rows), 5)
    values = {
        "open": opened,
        "high": np.maximum(opened, close) + 1,
        "low": np.minimum(opened, close) - 1,
        "close": close,
        "volume": volume,
        "quote_asset_volume": np.round(volume * close, 7),
        "taker_buy_base": np.round(volume / 2, 5),
        "taker_buy_quote": np.round(volume * close / 2, 7),
        "ignored": np.zeros(rows),
    }
    stamps = pl.int_range(rows, eager=True).cast(pl.Int64) * 60_000_000 + round(midnight(MONTH).timestamp()) * 10**6
    at = stamps.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    schema = schema_of("market_data")
    frame = pl.DataFrame(
        {
            "timestamp": at,
            "close_time": at + timedelta(milliseconds=59_999),
            "trades": pl.Series(random.integers(1, 1000, rows), dtype=pl.Int32),
            **{name: pl.Series(column).round(8) for name, column in values.items()},
        }
    )
    assert {schema["open"], schema["volume"], schema["timestamp"]} == {PRICE, QUANTITY, UTC}
    return frame.with_columns(
        pl.lit(symbol).alias("symbol"),
        pl.lit("1m").alias("interval"),
        *(pl.col(name).cast(schema[name]) for name in values),
    ).select(list(schema))


def fill(store: Store, markets: int) -> int:
    """Write the month of every market and what follows from it; rows in all."""
    days = [DayInputs(day, midnight(day + timedelta(days=1))) for day in days_between(MONTH, END)]
    with store.transaction() as connection:
        connection.execute(
            """INSERT INTO strategies (strategy_name, strategy_type, symbol, "interval", initial_balance,
                                       risk_per_trade, parameters, effective_from)
               SELECT 'strategy ' || n, 'ema_cross', 'MARKET0', '1m', 1, 0.01, '{}', %s
                 FROM generate_series(1, %s) AS n""",
            (MONTH, len(STRATEGIES)),
        )
    total = 0
    for number in range(markets):
        symbol = f"MARKET{number}"
        window = Window("market_data", MONTH, END, symbol, "1m")
        frame = candles(symbol, number)
        total += write_window(store, window, frame, days).rows
        ids = read_window(store, window, ["id", "timestamp"])
        random = np.random.default_rng(number)
        values = {name: pl.Series(random.normal(100, 10, ids.height)) for name in ("ema", "rsi", "atr", "vwap")}
        linked = {"market_data_id": ids["id"], "timestamp": ids["timestamp"]}
        market = [pl.lit(symbol).alias("symbol"), pl.lit("1m").alias("interval")]
        indicators = pl.DataFrame({**linked, **values}).with_columns(market).select(list(schema_of("indicators")))
        total += write_window(store, Window("indicators", MONTH, END, symbol, "1m"), indicators, days).rows
        for strategy in STRATEGIES:
            signals = pl.DataFrame(linked).with_columns(
                *market,
                pl.lit(strategy, dtype=pl.Int64).alias("strategy_id"),
                pl.Series("signal", random.integers(-1, 2, ids.height), dtype=pl.Int32),
            )
            frame = signals.select(list(schema_of("signals")))
            total += write_window(store, Window("signals", MONTH, END, symbol, "1m", strategy), frame, days).rows
    for table in MONTHLY:
        vacuum_months(store, table, [MONTH])
    return total


def windows(markets: int) -> list[Window]:
    """Every market's month of every table."""
    names = [f"MARKET{number}" for number in range(markets)]
    found = [Window(table, MONTH, END, name, "1m") for table in MONTHLY[:2] for name in names]
    return found + [Window("signals", MONTH, END, name, "1m", strategy) for name in names for strategy in STRATEGIES]


def read_all(store: Store, markets: int) -> tuple[list[pl.DataFrame], float]:
    """All rows with every column, market by market, and the seconds it took."""
    began = time.perf_counter()
    frames = [read_window(store, w, list(schema_of(w.table, generated=True))) for w in windows(markets)]
    return frames, time.perf_counter() - began


def left(store: Store) -> int:
    """Rows of the month in the database."""
    with store.transaction() as connection:
        union = " UNION ALL ".join(f"SELECT count(*) AS n FROM {table}" for table in MONTHLY)
        return int(connection.execute(f"SELECT sum(n) FROM ({union}) AS counted").fetchone()[0])


def wal(store: Store) -> int:
    """The server's position in its log, bytes."""
    with store.transaction() as connection:
        return int(connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").fetchone()[0])


def deleted(store: Store) -> tuple[float, float]:
    """Seconds and MB of log of deleting the month: children first, without marks, one transaction."""
    before, began = wal(store), time.perf_counter()
    with store.transaction() as connection:
        for table in reversed(MONTHLY):
            connection.execute("SELECT set_config('algobot.writing', %s, true)", (table,))
            connection.execute(
                sql.SQL('DELETE FROM {} WHERE "timestamp" >= %s AND "timestamp" < %s').format(sql.Identifier(table)),
                (midnight(MONTH), midnight(END)),
            )
    return time.perf_counter() - began, (wal(store) - before) / 2**20


def dropped(store: Store) -> tuple[float, float]:
    """Seconds and MB of log of the product's drop, locks and commit included, of a month that counts as archived."""
    with store.transaction() as connection:
        connection.execute(
            """INSERT INTO archived_files (month, table_name, symbol, "interval", strategy_id, path, rows, first_open,
                                           last_open, bytes, sha256, content_sha256, run_id)
               VALUES (%s, 'market_data', 'ALL', '1m', 0, 'nowhere', 1, %s, %s, 1, '', '', 'benchmark')""",
            (MONTH, midnight(MONTH), midnight(MONTH)),
        )
    before, began = wal(store), time.perf_counter()
    with store.transaction() as connection:
        months._drop(connection, MONTH)
    return time.perf_counter() - began, (wal(store) - before) / 2**20


def layouts(store: Store) -> dict[str, float]:
    """One file per market against one per table: size, and reading one market with its checksum checked."""
    with store.transaction() as connection:
        hold(connection, *MONTHLY)
        files = [file for file in files_of_month(connection, MONTH) if file.table == "market_data"]
    began = time.perf_counter()
    one = store.archive.read(files[0])
    single = time.perf_counter() - began
    packed = io.BytesIO()
    pl.concat([store.archive.read(file) for file in files]).write_parquet(packed, compression="zstd")
    data = packed.getvalue()
    digest = hashlib.sha256(data).digest()
    began = time.perf_counter()
    assert hashlib.sha256(data).digest() == digest
    same = pl.read_parquet(io.BytesIO(data)).filter(pl.col("symbol") == files[0].symbol)
    whole = time.perf_counter() - began
    if not same.equals(one):
        sys.exit("The two layouts give different rows; no figure is worth anything.")
    sizes = sum(file.size for file in files) / len(data)
    return {"size of market files / table file": sizes, "read one market / table": single / whole}


def one_round(server: servers.Server, markets: int, rows: int) -> dict[str, float]:
    """One round on fresh copies of the filled database."""
    figures: dict[str, float] = {}
    for way, remove in (("DELETE", deleted), ("drop", dropped)):
        name = f"by_{way.lower()}"
        server.ensure_database(name, template=FILLED)
        os.environ["ALGOBOT_DATABASE"] = name
        with Store.open() as store:
            checkpoint(server)
            figures[f"{way}, s"], figures[f"{way}, MB of log"] = remove(store)
            if left(store):
                sys.exit(f"{way} left rows of the month; no figure is worth anything.")
        server.drop_database(name)
    figures["DELETE / drop"] = figures["DELETE, s"] / figures["drop, s"]
    server.ensure_database("archived", template=FILLED)
    os.environ["ALGOBOT_DATABASE"] = "archived"
    with Store.open() as store:
        before, figures["read from PostgreSQL, s"] = read_all(store, markets)
        checkpoint(server)
        reset_peak()
        began = time.perf_counter()
        moved = months.archive_month(store, MONTH)
        figures["archive, s"] = time.perf_counter() - began
        figures["archive, peak MB"] = peak_bytes() / 2**20
        figures["archive, rows/s"] = rows / figures["archive, s"]
        figures["archive, bytes/row"] = moved.bytes / rows
        archived, figures["read from the archive, s"] = read_all(store, markets)
        figures["read archive / PostgreSQL"] = figures["read from the archive, s"] / figures["read from PostgreSQL, s"]
        figures |= layouts(store)
        checkpoint(server)
        began = time.perf_counter()
        months.restore_month(store, MONTH)
        figures["restore, s"] = time.perf_counter() - began
        restored, _ = read_all(store, markets)
    server.drop_database("archived")
    for one, two, three in zip(before, archived, restored, strict=True):
        if not (one.equals(two) and one.equals(three)):
            sys.exit("Before, from the archive and after the restore the rows differ; no figure is worth anything.")
    return figures


def report(result: dict[str, Any]) -> str:
    """The figures as text."""
    figures = [[name, f"{value:,.3f}" if value < 10 else f"{value:,.1f}"] for name, value in result["medians"].items()]
    title = f"One month of {result['markets']} markets (1m), {result['rows']:,} rows in three tables"
    return show(title, ["figure", "median"], figures)


def main() -> None:
    """Run, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--markets", type=int, default=4)
    given = options.parse_args()
    state = machine(PACKAGES)
    with throwaway(ALGOBOT_SOURCE="binance", ALGOBOT_DATABASE=FILLED) as (server, _):
        server.ensure_database(FILLED, template=TEMPLATE)
        with Store.open() as store:
            rows = fill(store, given.markets)
        rounds = [one_round(server, given.markets, rows) for _ in range(given.rounds)]
    result = {"markets": given.markets, "rows": rows, "rounds": rounds, "medians": medians(rounds)}
    print(report(result))
    ratios = [figures["DELETE / drop"] for figures in rounds]
    print(f"DELETE / drop over the rounds: {min(ratios):,.0f} to {max(ratios):,.0f}")
    print(f"Written to {save('retention', {'machine': state, **result})}.")


if __name__ == "__main__":
    main()
