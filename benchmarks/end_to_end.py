"""A year of minutes through all nine tables in one Dagster run: speed, where it goes, and memory.

    python -m benchmarks.end_to_end [--rounds 3] [--days 365] [--profile FILE]

Each round gets fresh databases on a throw-away embedded server with fsync on. Candles are the real ones of
BTCUSDT 1m of 2023 (ALGOBOT_DATA, default ../shared/data), else seeded ones. README.md says how to read it.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import psycopg
from pgpq import ArrowToPostgresBinaryEncoder

from algobot_assets import io_manager, runs, windows
from algobot_assets.assets import candles, ledger_inputs, market, reference, trading
from algobot_assets.feed import klines
from algobot_assets.feed.folder import Folder
from algobot_assets.schema.intervals import months_between, next_month
from algobot_assets.schema.windows import WINDOWING, Window, canonical_order, content_columns
from algobot_assets.settings import Settings
from algobot_assets.store import lineage, migrate, writer
from algobot_assets.store import server as servers
from algobot_assets.store.connection import Store
from algobot_assets.store.digests import day_digests, digest
from algobot_assets.store.reader import read_window
from benchmarks.harness import Stages, machine, medians, peak_bytes, reset_peak, save, show

FIRST = date(2023, 1, 1)
TEMPLATE = "template_benchmark"
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
#: Stages inside of a table's write.
PARTS = ("copy", "verify", "digest", "lineage")
PACKAGES = ("dagster", "dagster-postgres", "polars", "psycopg", "pgpq", "connectorx", "numba", "sqlalchemy")


def table_of(_: Any, window: Window, *__: Any) -> str:
    """The table that a call of write_window or read_window is about."""
    return window.table


WATCHED = (
    *((Folder, name, "fetch", None) for name in ("__init__", "known_through", "first_open", "_read")),
    (market, "compute_indicators", "compute", None),
    (market, "compute_signals", "compute", None),
    (trading, "run_ledger", "compute", None),
    (trading, "candle_arrays", "compute", None),
    (windows, "read_window", "read", table_of),
    (candles, "read_window", "read", table_of),
    (trading, "read_window", "read", table_of),
    *((module, "read_table", "read", None) for module in (windows, ledger_inputs, reference)),
    (io_manager, "settle", "vacuum", None),
    (candles, "day_digests", "digest", None),
    (writer, "day_digests", "digest", None),
    (writer, "copy_in", "copy", None),
    (writer, "_compare", "verify", None),
    (lineage, "read", "lineage", None),
    (lineage, "write", "lineage", None),
    (io_manager.PostgresIOManager, "handle_output", "asset", lambda _, context, __: context.asset_key.path[-1]),
    (io_manager.PostgresIOManager, "load_input", "asset", lambda _, context: context.asset_key.path[-1]),
)


def published(days: int, folder: Path) -> tuple[Path, str]:
    """The folder of candles and what they are; seeded ones are made where the real ones are not."""
    shared = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    real = shared / "klines" / "spot" / "BTCUSDT-1m-2023.parquet"
    (folder / "spot").mkdir(parents=True)
    if real.exists():
        (folder / "spot" / real.name).symlink_to(real)
        return folder, "real BTCUSDT 1m of 2023"
    rows = days * 1440
    random = np.random.default_rng(1)
    close = 20_000 * np.exp(np.cumsum(random.normal(0, 0.0007, rows)))
    opened = np.concatenate([[20_000.0], close[:-1]])
    volume = random.gamma(2.0, 10.0, rows)
    time_ms = round(datetime(2023, 1, 1, tzinfo=UTC).timestamp() * 1000) + 60_000 * np.arange(rows)
    high, low = np.maximum(opened, close) * 1.0003, np.minimum(opened, close) * 0.9997

    def text(values: np.ndarray, places: int) -> list[str]:
        return [f"{value:.{places}f}" for value in values]

    frame = pl.DataFrame(
        [
            pl.Series("open_time", time_ms),
            *(pl.Series(n, text(v, 2)) for n, v in (("open", opened), ("high", high), ("low", low), ("close", close))),
            pl.Series("volume", text(volume, 5)),
            pl.Series("close_time", time_ms + 59_999),
            pl.Series("quote_volume", text(volume * close, 7)),
            pl.Series("count", random.integers(1, 1000, rows)),
            pl.Series("taker_buy_volume", text(volume / 2, 5)),
            pl.Series("taker_buy_quote_volume", text(volume * close / 2, 7)),
            pl.Series("ignore", ["0"] * rows),
        ]
    )
    frame.write_parquet(folder / "spot" / "BTCUSDT-1m-2023.parquet")
    return folder, "seeded"


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
        days = (
            frame["timestamp"].dt.date() if window.rule.time == "timestamp" else frame[window.rule.time]
        ).alias("day")
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


class BareCopy:
    """COPY BINARY of every window's rows into the same tables of a second database, beside the run's own write.

    The floor: buffers are ready, one transaction per window, leaves are there; no digest, lock, check or lineage.
    Each goes first in every other window, so that none profits from what the other has warmed.
    """

    def __init__(self, bare: Store, stages: Stages, end: date) -> None:
        self.bare, self.stages = bare, stages
        self.seconds = dict.fromkeys(COPIED, 0.0)
        self._write, self._turn = io_manager.write_window, 0
        with bare.transaction() as connection:
            for month in months_between(FIRST, end):
                connection.execute("SELECT ensure_month(%s)", (month,))

    def write_window(self, store: Store, window: Window, frame: pl.DataFrame, *rest: Any) -> Any:
        """In place of the product's write_window: both writes, timed apart."""
        self._turn += 1
        if self._turn % 2:
            self._copy(store, window, frame)
        with self.stages.stage("write", window.table):
            written = self._write(store, window, frame, *rest)
        if not self._turn % 2 or window.table == "strategies":
            self._copy(store, window, frame)
        return written

    def _copy(self, store: Store, window: Window, frame: pl.DataFrame) -> None:
        with self.stages.stage("bare", window.table):
            if window.table == "strategies":
                self._strategies(store)
            if window.table not in COPIED or frame.is_empty():
                return
            frame = self._relinked(store, window, frame)
            arrow = frame.to_arrow()
            encoder = ArrowToPostgresBinaryEncoder(arrow.schema)
            buffers = [encoder.write_header(), *map(encoder.write_batch, arrow.to_batches(65_536)), encoder.finish()]
            columns = ", ".join(f'"{name}"' for name in frame.columns)
            statement = f"COPY {window.table} ({columns}) FROM STDIN BINARY"
            began = time.perf_counter()
            with self.bare.transaction() as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
                for buffer in buffers:
                    copy.write(buffer)
            self.seconds[window.table] += time.perf_counter() - began

    def _strategies(self, store: Store) -> None:
        """What the others refer to, with the same ids."""
        with store.transaction() as source, self.bare.transaction() as connection:
            for row in source.execute("SELECT * FROM strategies ORDER BY id").fetchall():
                values = [psycopg.types.json.Jsonb(v) if isinstance(v, dict) else v for v in row]
                marks = ", ".join(["%s"] * len(row))
                connection.execute(
                    f"INSERT INTO strategies OVERRIDING SYSTEM VALUE VALUES ({marks}) ON CONFLICT DO NOTHING", values
                )

    def _relinked(self, store: Store, window: Window, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows with the ids that candles and trades have in the second database."""
        for link, table in (("market_data_id", "market_data"), ("trade_id", "trade_history")):
            if link not in frame.columns:
                continue
            target = Window(table, window.first, window.end, window.symbol, window.interval, window.strategy_id)
            keys = [name for name in WINDOWING[table].natural_key if name != "strategy_id"]
            here, there = (read_window(s, target, ["id", *keys]) for s in (store, self.bare))
            ids = here.join(there, on=keys, suffix="_there").select(pl.col("id").alias(link), "id_there")
            frame = frame.join(ids, on=link, how="left", maintain_order="left")
            frame = frame.with_columns(pl.col("id_there").alias(link)).drop("id_there")
        return frame


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for the time of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def counted(bare: Store) -> dict[str, int]:
    """Rows of the compared tables."""
    with bare.transaction() as connection:
        return {t: connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in COPIED}


def checkpoint(server: servers.Server) -> None:
    """Flush what earlier phases left, so that no phase pays for another."""
    with server.connect("postgres", autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def one_round(server: servers.Server, number: int, days: int, file: Path, profile: str | None) -> dict[str, Any]:
    """All phases in fresh databases: the run with a bare COPY beside it, equality, the run again."""
    name, bare_name = f"round_{number}", f"bare_{number}"
    for database in (name, bare_name):
        server.ensure_database(database, template=TEMPLATE)
    last = FIRST + timedelta(days=days - 1)
    end = last + timedelta(days=1)
    with environment(ALGOBOT_DATABASE=name, ALGOBOT_DAGSTER_DATABASE=f"dagster_{number}"):
        began = time.perf_counter()
        with (
            runs.instance(Settings()) as instance,
            Store.open(run_id="benchmark") as store,
            Store(replace(store.database, name=bare_name)) as bare,
        ):
            opening = time.perf_counter() - began
            stages, again_stages, profiler = Stages(), Stages(), cProfile.Profile()
            beside = BareCopy(bare, stages, end)
            checkpoint(server)
            reset_peak()
            with stages.watching(*WATCHED), mock.patch.object(io_manager, "write_window", beside.write_window):
                began = time.perf_counter()
                if profile:
                    profiler.enable()
                result = runs.materialise(instance, FIRST, last)
                profiler.disable()
                total = time.perf_counter() - began - stages.seconds("bare", inside=True)
            peak = peak_bytes()
            if profile:
                profiler.dump_stats(profile)
            if not result.success or result.left_out:
                sys.exit(f"The run failed: {result.error or result.left_out}")
            equality = check_equality(store, end, file)
            if {table: item["rows"] for table, item in equality.items()} != counted(bare):
                sys.exit("The bare COPY holds other rows than the run stored; no figure is worth anything.")
            checkpoint(server)
            changes: list[int] = []

            def write_window(*arguments: Any) -> Any:
                written = writer.write_window(*arguments)
                changes.append(written.changed)
                return written

            with again_stages.watching(*WATCHED), mock.patch.object(io_manager, "write_window", write_window):
                began = time.perf_counter()
                again = runs.materialise(instance, FIRST, last)
                again_total = time.perf_counter() - began
            if not again.success or check_equality(store, end, file) != equality:
                sys.exit(f"The second run changed what is stored: {again.error}")
    for database in (name, bare_name, f"dagster_{number}"):
        server.drop_database(database)
    ours = stages.seconds("asset", inside=True) - stages.seconds("bare", inside=True)
    names = sorted({n for n, _ in stages.own} - {"asset", "bare"})
    figures = {
        "seconds": total,
        "candles per second": equality["market_data"]["rows"] / total,
        "peak GB": peak / 2**30,
        "opening the Dagster instance": opening,
        "second run seconds": again_total,
        "second run fraction": again_total / total,
        "second run Dagster": again_total - again_stages.seconds("asset", inside=True),
        "second run rows written": sum(changes),
        "stage Dagster": total - ours,
        "stage glue": stages.seconds("asset"),
        **{f"stage {n}": stages.seconds(n) for n in names},
    }
    for table in COPIED:
        write = stages.seconds("write", table, inside=True)
        figures[f"write {table}"] = write
        figures[f"copy {table}"] = beside.seconds[table]
        figures[f"ratio {table}"] = write / beside.seconds[table]
        for part in PARTS:
            figures[f"part {table} {part}"] = stages.seconds(part, table)
    return {"figures": figures, "equality": equality}


def report(figures: dict[str, float]) -> str:
    """The figures as text."""
    total = figures["seconds"]
    general = [
        [name, f"{figures[name]:,.{places}f}"]
        for name, places in (
            ("seconds", 1), ("candles per second", 0), ("peak GB", 2), ("opening the Dagster instance", 1),
            ("second run seconds", 2), ("second run fraction", 3), ("second run Dagster", 2),
            ("second run rows written", 0),
        )
    ]  # fmt: skip
    stages = sorted(
        ((name.removeprefix("stage "), value) for name, value in figures.items() if name.startswith("stage ")),
        key=lambda item: -item[1],
    )
    columns = ("write {}", "copy {}", "ratio {}", *(f"part {{}} {part}" for part in PARTS))
    tables = [[table, *(f"{figures[column.format(table)]:.2f}" for column in columns)] for table in COPIED]
    return "\n".join(
        [
            show("One run over all nine tables", ["figure", "median"], general),
            show("Stages of it, own time", ["stage", "s", "share"],
                 [[n, f"{v:.2f}", f"{v / total:.1%}"] for n, v in stages]),
            show("Writing, against a bare COPY BINARY of the same rows",
                 ["table", "write s", "bare s", "ratio", *PARTS], tables),
        ]
    )  # fmt: skip


def main() -> None:
    """Run the rounds and print and save their medians."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--days", type=int, default=365)
    options.add_argument("--profile", help="write cProfile's statistics of the last round's run to this file")
    given = options.parse_args()
    state = machine(PACKAGES)
    home = Path(tempfile.mkdtemp(prefix="algobot_benchmark_"))
    (home / "algobot.yaml").write_text(STATE)
    folder, what = published(given.days, home / "klines")
    file = folder / "spot" / "BTCUSDT-1m-2023.parquet"
    with environment(
        ALGOBOT_HOME=str(home / "home"), ALGOBOT_STATE_FILE=str(home / "algobot.yaml"), ALGOBOT_SOURCE=str(folder)
    ):
        settings = Settings()
        if settings.database_url is not None:
            sys.exit("The benchmark needs a server of its own: unset ALGOBOT_DATABASE_URL.")
        server = servers.ensure_running(settings, durable=True)
        try:
            server.ensure_database(TEMPLATE)
            migrate.upgrade(server.sqlalchemy_url(TEMPLATE))
            rounds = [
                one_round(server, n, given.days, file, given.profile if n == given.rounds else None)
                for n in range(1, given.rounds + 1)
            ]
        finally:
            servers.discard(settings)
            shutil.rmtree(home)
    if any(item["equality"] != rounds[0]["equality"] for item in rounds):
        sys.exit("Two rounds stored different rows; no figure is worth anything.")
    figures = medians([item["figures"] for item in rounds])
    print(report(figures))
    path = save(
        "end_to_end",
        {
            "candles": what,
            "days": given.days,
            "rounds": given.rounds,
            "machine": state,
            "equality": rounds[0]["equality"],
            "medians": {name: round(value, 4) for name, value in figures.items()},
            "seconds of each round": [round(item["figures"]["seconds"], 2) for item in rounds],
        },
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()
