"""The job that benchmarks run: a year of minutes, three strategies, all nine tables; and whether answers are right.

Here belong the candles, the declared state, fresh databases on a throw-away server, and the comparison of what is
stored with its lineage and its source. What is timed is each benchmark's affair.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from algobot_assets.cli import runs
from algobot_assets.feed import klines
from algobot_assets.schema.intervals import months_between, next_month
from algobot_assets.schema.windows import Window, canonical_order, content_columns
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import day_digests, digest
from algobot_assets.store.reader import read_window
from algobot_assets.store.server import control as servers
from benchmarks.markets import published as seeded
from benchmarks.throwaway import TEMPLATE, checkpoint, environment, throwaway

FIRST = date(2023, 1, 1)
STATE = """
markets:
  - {symbol: BTCUSDT, interval: 1m, start: 2023-01-01}
strategies:
""" + "".join(
    f"""
  {name}:
    type: {name}
    market: BTCUSDT 1m
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}}
"""
    for name in ("ema_cross", "macd", "btc")
)
#: Tables whose write is compared with a bare COPY of the same rows.
COPIED = ("market_data", "indicators", "signals", "trade_history", "performance_metrics", "backtest_results")


def published(days: int, folder: Path) -> tuple[Path, str]:
    """The file of candles and what they are; seeded ones are made where the real ones are not."""
    shared = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    real = shared / "klines" / "spot" / "BTCUSDT-1m-2023.parquet"
    file = folder / "spot" / real.name
    if real.exists():
        file.symlink_to(real)
        return file, "real BTCUSDT 1m of 2023"
    seeded(FIRST, days, 1).write_parquet(file)
    return file, "seeded"


def stored(store: Store, end: date) -> Iterator[tuple[Window, pl.DataFrame]]:
    """Everything stored of the candle and ledger tables, by market or strategy and month, with ids of links."""
    with store.transaction() as connection:
        keys = connection.execute(
            'SELECT DISTINCT table_name, symbol, "interval", strategy_id FROM lineage WHERE table_name = ANY(%s)',
            (list(COPIED),),
        ).fetchall()
    for table, symbol, interval, strategy in sorted(keys, key=lambda key: (COPIED.index(key[0]), *key[1:])):
        for month in months_between(FIRST, end):
            window = Window(table, month, min(next_month(month), end), symbol, interval, strategy)
            yield window, read_window(store, window)


def check_equality(store: Store, end: date, file: Path) -> dict[str, Any]:
    """Rows and digest per table. Stops where stored rows differ from their lineage, or candles from the file."""
    counts: dict[str, int] = dict.fromkeys(COPIED, 0)
    parts: dict[str, list[bytes]] = {table: [] for table in COPIED}
    for window, frame in stored(store, end):
        frame = frame.sort(canonical_order(window.table), maintain_order=True)
        days = (frame["timestamp"].dt.date() if window.rule.time == "timestamp" else frame[window.rule.time]).alias(
            "day"
        )
        digests = day_digests(frame, content_columns(window.table), days)
        with store.transaction() as connection:
            recorded = lineage.read(connection, window)
        wrong = [day for day, item in recorded.items() if digests.get(day, (0, b"")) != (item.rows, item.output)]
        if wrong or set(digests) - set(recorded):
            sys.exit(f"{window}: stored rows differ from their lineage on {wrong[:3]}; no figure is worth anything.")
        counts[window.table] += frame.height
        parts[window.table] += [value for _, (_, value) in sorted(digests.items())]
    source = klines.from_published(pl.read_parquet(file), "BTCUSDT", "1m")
    source = source.filter(pl.col("timestamp") < datetime(end.year, end.month, end.day, tzinfo=UTC))
    expected = day_digests(source, content_columns("market_data"), source["timestamp"].dt.date().alias("day"))
    if [value for _, value in expected.values()] != parts["market_data"]:
        sys.exit("The stored candles are not those of the file; no figure is worth anything.")
    for table, times in {"indicators": 1, "signals": 3}.items():
        if counts[table] != times * source.height:
            sys.exit(f"{table} has {counts[table]} rows for {source.height} candles; no figure is worth anything.")
    return {table: {"rows": counts[table], "digest": digest(*parts[table]).hex()} for table in COPIED}


def counted(bare: Store) -> dict[str, int]:
    """Rows of the compared tables."""
    with bare.transaction() as connection:
        return {t: connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in COPIED}


@contextmanager
def prepared(days: int) -> Iterator[tuple[servers.Server, Path, str]]:
    """A throw-away server, the file of candles, and what they are."""
    with throwaway() as (server, folder):
        (folder / "algobot.yaml").write_text(STATE)
        file, what = published(days, folder / "klines")
        yield server, file, what


@contextmanager
def fresh(
    server: servers.Server, name: str, *, beside: bool = False, template: str = TEMPLATE
) -> Iterator[tuple[dg.DagsterInstance, Store, Store]]:
    """A Dagster instance and its data database, new; with ``beside`` a second data database, else the same one."""
    names = [f"data_{name}", *([f"beside_{name}"] if beside else [])]
    for database in names:
        server.ensure_database(database, template=template)
    with ExitStack() as stack:
        stack.enter_context(environment(ALGOBOT_DATABASE=names[0], ALGOBOT_DAGSTER_DATABASE=f"dagster_{name}"))
        instance = stack.enter_context(runs.instance(Settings()))
        store = stack.enter_context(Store.open(run_id="benchmark"))
        second = stack.enter_context(Store(replace(store.database, name=names[-1]))) if beside else store
        checkpoint(server)
        yield instance, store, second
    for database in (*names, f"dagster_{name}"):
        server.drop_database(database)
