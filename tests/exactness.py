"""What the exactness tests are made of: worlds of real candles, plans of runs over them, and playing a plan.

A plan is data, so Hypothesis can draw it and a failure prints it. Playing it drives real Dagster runs against a
folder of candles that the plan changes on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from conftest import TEMPLATE, Project, url_of
from hypothesis import strategies as st
from real_candles import FOLDER, interval_of
from tables import content

from algobot_assets.audit.staleness import due, stale
from algobot_assets.audit.verify import verify
from algobot_assets.pipeline.ledger import tables as ledger_tables
from algobot_assets.schema.intervals import day_of, phase_of
from algobot_assets.store.connection import Store

REFERENCE = ("configurations", "strategies", "risk_parameters")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """Markets (symbol, and a file of `klines/`), days, and a declared state."""

    name: str
    files: tuple[tuple[str, str], ...]
    first: date
    days: int
    state: str

    @property
    def last(self) -> date:
        return self.first + DAY * (self.days - 1)


HISTORY = World(
    "history",
    (
        ("BTCUSDT", "spot/BTCUSDT-2h-2017_2020"),
        ("BTCUSDT", "spot/BTCUSDT-4h-2017_2026-04"),
        ("BTCUSDT", "spot/BTCUSDT-3d-2017_2026-04"),
        ("BTCUSDT", "spot/BTCUSDT-1w-2017_2026-04"),
        ("BTCUSDT", "spot/BTCUSDT-1mo-2017_2026-03"),
        ("ETHUSDT", "spot/ETHUSDT-1d-all_2026-04"),
    ),
    date(2018, 1, 25),
    40,
    """
markets:
  - {symbol: BTCUSDT, intervals: [2h, 4h, 3d, 1w, 1M], start: 2018-01-25}
  - {symbol: ETHUSDT, interval: 1d, start: 2018-01-25}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 4h
    initial_balance: 10000
    risk_per_trade: 0.02
    shorting: true
    risk:
      - {max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 3, take_profit_percentage: 6}
      - {effective_from: 2018-02-20, max_risk_per_trade: 0.01, max_open_trades: 1, stop_loss_percentage: 2,
         take_profit_percentage: 0}
    versions:
      - parameters: {fast: 3, slow: 8}
      - {effective_from: 2018-02-14, parameters: {fast: 2, slow: 5}}
  rules:
    type: btc
    market: BTCUSDT 2h
    initial_balance: 5000
    risk_per_trade: 0.02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 3, stop_loss_percentage: 4, take_profit_percentage: 4}
  days:
    type: macd
    market: ETHUSDT 1d
    parameters: {fast: 2, slow: 5, signal: 3}
    initial_balance: 5000
    risk_per_trade: 0.05
    shorting: true
    risk: {max_risk_per_trade: 0.05, max_open_trades: 1, stop_loss_percentage: 10, take_profit_percentage: 0}
  slow:
    type: ema_cross
    market: BTCUSDT 3d
    parameters: {fast: 1, slow: 3}
    initial_balance: 5000
    risk_per_trade: 0.05
    shorting: true
    risk: {max_risk_per_trade: 0.05, max_open_trades: 1, stop_loss_percentage: 10, take_profit_percentage: 0}
configurations:
  indicators.ema_window:
    - value: 5
    - {value: 9, effective_from: 2018-02-17}
  ledger.slippage_bps: 2
""",
)
MINUTES = World(
    "minutes",
    (
        ("BTCUSDT", "spot/BTCUSDT-1m-2023"),
        ("BTCUSDT", "spot/BTCUSDT-15m-2023"),
        ("NEARUSDT.UM", "futures-um/NEARUSDT-1m-2023-08_2023-10"),
    ),
    date(2023, 8, 30),
    4,
    """
markets:
  - {symbol: BTCUSDT, intervals: [15m, 1m], start: 2023-08-30}
  - {symbol: NEARUSDT.UM, interval: 1m, start: 2023-08-30}
strategies:
  path:
    type: btc
    market: BTCUSDT 15m
    stop_path: 1m
    initial_balance: 5000
    risk_per_trade: 0.02
    shorting: true
    risk: {max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 0.3, take_profit_percentage: 0.3}
  near:
    type: ema_cross
    market: NEARUSDT.UM 1m
    initial_balance: 5000
    risk_per_trade: 0.01
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 1, take_profit_percentage: 1}
""",
)

#: How a candle may change: each change gives a candle that could be.
CHANGES = ("volume", "close", "gone")
COMPUTED = ("indicators", "signals", "trade_history", "performance_metrics", "backtest_results")


@dataclass(frozen=True)
class Run:
    """One range run of the days `first` to `last` (counted from the world's first day), all tables or candles only."""

    first: int
    last: int
    candles_only: bool = False


@dataclass(frozen=True)
class Correction:
    """A candle (by market and place, 0 to 1) changes: at its source, which is asked again, or by SQL."""

    market: int
    place: float
    change: str
    by_sql: bool


@dataclass(frozen=True)
class Tampering:
    """Rows of a computed table are changed or deleted by SQL."""

    table: str
    delete: bool


@dataclass(frozen=True)
class Refresh:
    """The run that is due by then, if one is."""


Step = Run | Correction | Tampering | Refresh


@dataclass(frozen=True)
class Plan:
    """Steps in order. Up to step `grows_at` the source ends at `known` of its extent, thereafter it is whole."""

    steps: tuple[Step, ...]
    known: float = 1.0
    grows_at: int = 0


@st.composite
def plans(draw: st.DrawFn, world: World) -> Plan:
    """Any split into runs, mostly in order, with repeats, corrections and older history among them."""
    n = world.days
    begin = draw(st.sampled_from([0, 0, n // 4]))
    cuts = draw(st.lists(st.integers(begin + 1, n - 1), max_size=3, unique=True))
    edges = [begin, *sorted(cuts), n]
    only = st.sampled_from([False, False, False, True])
    steps: list[Step] = [Run(a, b - 1, draw(only)) for a, b in pairwise(edges)]
    if begin:
        steps.insert(draw(st.integers(1, len(steps))), Run(0, begin - 1, draw(st.booleans())))
    if draw(st.integers(0, 3)) == 0:
        steps = list(draw(st.permutations(steps)))
    span = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).map(sorted)
    extra = st.one_of(
        span.map(lambda pair: Run(*pair)),
        st.builds(
            Correction,
            st.integers(0, len(world.files) - 1),
            st.floats(0, 1),
            st.sampled_from(CHANGES),
            st.booleans(),
        ),
        st.builds(Tampering, st.sampled_from(COMPUTED), st.booleans()),
        st.just(Refresh()),
    )
    for step in draw(st.lists(extra, max_size=3)):
        steps.insert(draw(st.integers(1, len(steps))), step)
    known = draw(st.sampled_from([1.0, 1.0, 0.45, 0.83]))
    return Plan(tuple(steps), known, draw(st.integers(1, len(steps))) if known < 1 else 0)


@cache
def published(name: str, first: date, last: date) -> pl.DataFrame:
    """The candles of a file that belong to the days first to last, as published."""
    path = FOLDER / "klines" / f"{name}.parquet"
    if not path.exists():
        pytest.skip("real candles are not here: set ALGOBOT_DATA to their folder")
    frame = pl.read_parquet(path)
    interval = interval_of(name)
    opened = frame.select(pl.from_epoch("open_time", "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"))
    phase = phase_of(opened.item(0, 0)) if interval == "3d" else None
    return frame.filter(opened.select(day_of(interval, phase, "open_time")).to_series().is_between(first, last))


class Played:
    """A project in a database of its own, and the source as it is by now."""

    def __init__(self, world: World, project: Project, url: str) -> None:
        self.world, self.project, self.url = world, project, url
        self.source = {file: published(file, world.first, world.last) for _, file in world.files}
        self.known = 1.0
        self.edited = False
        project.declare(world.state)

    def play(self, plan: Plan) -> None:
        """The steps of a plan, then what makes everything fresh."""
        self.known = plan.known
        self.publish()
        self.run(self.world.first, self.world.last, REFERENCE)
        for number, step in enumerate(plan.steps):
            if number == plan.grows_at and self.known < 1:
                self.known = 1.0
                self.publish()
            self.step(step)
        self.known = 1.0
        self.publish()
        self.settle()

    def settle(self) -> None:
        """Fetch what is missing, then run what is due until nothing is."""
        self.run(self.world.first, self.world.last, ("market_data",))
        with Store.open(run_id="test") as store:
            for _ in range(6):
                run = due(store)
                if run is None:
                    return
                self.project.run(run.first, run.last, run.tables)
            assert stale(store).rows() == [], "refreshing does not come to an end"

    def publish(self) -> None:
        """Write the source's candles into the project's folder, as far as it knows them by now."""
        for symbol, file in self.world.files:
            frame = self.source[file]
            market, _, name = file.rpartition("/")
            interval = name.split("-")[1]
            start, end = frame["open_time"].min(), frame["close_time"].max()
            path = self.project.klines / market / f"{symbol.removesuffix('.UM')}-{interval}-all.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = frame.filter(pl.col("close_time") <= start + (end - start) * self.known)
            (seen if seen.height else frame.head(1)).write_parquet(path)

    def run(self, first: date, last: date, tables: tuple[str, ...] | None = None, **options: dict) -> None:
        """One run; it may leave markets out or refuse as a whole, but only in words for people."""
        result = self.project.run(first, last, tables, **options)
        assert result.success or (result.error and "Stack Trace" not in result.error), result.error

    def step(self, step: Step) -> None:
        """One step of a plan."""
        match step:
            case Run(first, last, candles_only):
                tables = ("market_data",) if candles_only else None
                self.run(self.world.first + DAY * first, self.world.first + DAY * last, tables)
            case Correction():
                self.correct(step)
            case Tampering(table, delete):
                self.tamper(table, delete)
            case Refresh():
                with Store.open(run_id="test") as store:
                    run = due(store)
                if run is not None:
                    self.run(run.first, run.last, run.tables)

    def correct(self, step: Correction) -> None:
        """Change a candle of the source; then either the day is fetched anew, or SQL does the same to the row."""
        symbol, file = self.world.files[step.market]
        frame, interval = self.source[file], interval_of(file)
        if frame.height < 3:
            return
        place = 1 + round(step.place * (frame.height - 3))
        opened = frame["open_time"][place]
        here = pl.col("open_time") == opened
        if step.change == "gone":
            self.source[file] = frame.filter(~here)
            statement = "DELETE FROM market_data"
        elif step.change == "close":
            self.source[file] = frame.with_columns(pl.when(here).then("high").otherwise("close").alias("close"))
            statement = "UPDATE market_data SET close = high"
        else:
            more = pl.lit("9") + pl.col("volume")
            self.source[file] = frame.with_columns(pl.when(here).then(more).otherwise("volume").alias("volume"))
            volume = self.source[file]["volume"][place]
            statement = f"UPDATE market_data SET volume = {volume}"
        self.publish()
        if step.by_sql:
            self.edited = True
            with psycopg.connect(self.url) as connection:
                connection.execute(
                    f'{statement} WHERE symbol = %s AND "interval" = %s '
                    'AND "timestamp" = to_timestamp(%s::float8 / 1000)',
                    (symbol, interval, opened),
                )
            return
        moment = datetime.fromtimestamp(opened / 1000, UTC)
        timestamp = pl.DataFrame({"timestamp": [moment]}, schema={"timestamp": pl.Datetime("us", "UTC")})
        day = timestamp.select(day_of(interval, phase_of(moment) if interval == "3d" else None)).item()
        self.run(day, day, ("market_data",), market_data={"from_source": True})

    def tamper(self, table: str, delete: bool) -> None:
        """Change or delete a third of a computed table's rows."""
        column = {"indicators": "ema", "signals": "signal", "trade_history": "net_profit"}.get(table, "final_capital")
        value = "CASE signal WHEN 0 THEN 1 ELSE 0 END" if table == "signals" else f"{column} + 1"
        statement = f"DELETE FROM {table}" if delete else f"UPDATE {table} SET {column} = {value}"
        with psycopg.connect(self.url) as connection:
            connection.execute(f"{statement} WHERE id % 3 = 0")

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """All tables; lineage of candles without what the source said, where SQL has changed them since."""
        tables = content(self.url)
        if self.edited:
            tables["lineage"] = [
                (*row[:7], None, *row[8:]) if row[0] == "market_data" else row for row in tables["lineage"]
            ]
        return tables


@contextmanager
def database(server: Any, name: str) -> Iterator[str]:
    """A migrated database which the settings name for the time of the block."""
    server.ensure_database(name, template=TEMPLATE)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALGOBOT_DATABASE_URL", url_of(server, name))
            patch.setenv("ALGOBOT_SOURCE", "binance")
            yield os.environ["ALGOBOT_DATABASE_URL"]
    finally:
        server.drop_database(name)


def check(world: World, plan: Plan, server: Any, instance: Any, folder: Path) -> None:
    """Play a plan; then nothing is stale, verifying finds nothing, and one pass elsewhere gives the same bits."""
    with database(server, "played") as url:
        played = Played(world, Project(folder, instance), url)
        played.play(plan)
        with Store.open(run_id="test") as store:
            assert stale(store).rows() == []
            ledger_tables._walks.clear()  # what is remembered would not be computed again
            assert [f.difference for f in verify(store, world.first, world.last)] == [None] * 6
        found = played.content()
    ledger_tables._walks.clear()
    with database(server, "one_pass") as url:
        fresh = Played(world, Project(folder, instance), url)
        fresh.source, fresh.edited = played.source, played.edited
        fresh.publish()
        result = fresh.project.run(world.first, world.last)
        assert result.success and result.skipped == (), result
        expected = fresh.content()
    assert len(expected["trade_history"]) > 5 and len(expected["indicators"]) > 100
    for table, rows in expected.items():
        assert found[table] == rows, f"{table} differs after {plan}: {sorted(set(found[table]) ^ set(rows))[:6]}"
