"""Fixtures that all tests share: a real PostgreSQL, a fresh migrated database, candles to ingest, and runs.

The server is the embedded one, started once per session without fsync and removed at the end; each test that
asks for a database gets a copy of a migrated template.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

# batched event writing, as Dagster's storage class of the project sets it for every process
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")

from algobot_assets.cli import runs
from algobot_assets.definitions import build_defs
from algobot_assets.settings import Settings
from algobot_assets.store import migrate
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database
from algobot_assets.store.server import control as servers

_numbers = count(1)
TEMPLATE = "template_algobot"


@pytest.fixture(autouse=True)
def environment_kept() -> Iterator[None]:
    """A command that is run within the tests hands its choices on to what it starts by the environment."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() | before.keys():
        if name.startswith(("ALGOBOT_", "DAGSTER_")) and os.environ.get(name) != before.get(name):
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """The session's PostgreSQL with a migrated template database."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=None)
    running = servers.ensure_running(settings, durable=False)
    running.ensure_database(TEMPLATE)
    migrate.upgrade(running.sqlalchemy_url(TEMPLATE))
    yield running
    servers.discard(settings)


def url_of(server: Database, name: str) -> str:
    """The URL of a database on the session's server, as a user would write it."""
    return server.sqlalchemy_url(name).replace("postgresql+psycopg", "postgresql", 1)


@pytest.fixture
def new_database(server: servers.Server) -> Iterator[Callable[[], str]]:
    """Makes migrated databases; each call gives the URL of a new one."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test_{os.getpid()}_{next(_numbers)}")
        server.ensure_database(names[-1], template=TEMPLATE)
        return url_of(server, names[-1])

    yield make
    for name in names:
        server.drop_database(name)


@pytest.fixture
def database_url(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database of the test's own, which the settings name for the time of the test."""
    url = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The store of the test's database."""
    with Store.open(run_id="test") as opened:
        yield opened


@pytest.fixture(scope="session")
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """One ephemeral instance for all runs of the session."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def published_candles(
    start: datetime, rows: int, minutes: int = 60, seed: int = 1, price: float = 30_000.0, decimals: int = 2
) -> pl.DataFrame:
    """Seeded candles in the layout of published Parquet klines (texts, times in ms); fewer rows are a prefix."""
    random = np.random.default_rng(seed)
    wanted, rows = rows, max(rows, 2_000)
    close = price * np.exp(np.cumsum(random.normal(0, 0.004, rows)))
    opened = np.concatenate([[price], close[:-1]])
    high = np.maximum(opened, close) * (1 + random.uniform(0, 0.003, rows))
    low = np.minimum(opened, close) * (1 - random.uniform(0, 0.003, rows))
    volume = random.gamma(2.0, 10.0, rows)
    step = minutes * 60_000
    open_time = round(start.timestamp() * 1000) + step * np.arange(rows)

    def text(values: np.ndarray, places: int) -> list[str]:
        return [f"{value:.{places}f}" for value in values]

    up, down = np.ceil(high * 10**decimals) / 10**decimals, np.floor(low * 10**decimals) / 10**decimals
    return pl.DataFrame(
        {
            "open_time": open_time,
            "open": text(opened, decimals),
            "high": text(up, decimals),
            "low": text(down, decimals),
            "close": text(close, decimals),
            "volume": text(volume, 5),
            "close_time": open_time + step - 1,
            "quote_volume": text(volume * close, 7),
            "count": random.integers(1, 1000, rows),
            "taker_buy_volume": text(volume / 2, 5),
            "taker_buy_quote_volume": text(volume * close / 2, 7),
            "ignore": ["0"] * rows,
        },
        schema_overrides={"open_time": pl.Int64, "close_time": pl.Int64, "count": pl.Int64},
    ).head(wanted)


STATE = """
markets:
  - {{symbol: BTCUSDT, interval: 1h, start: {start}}}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 1h
    parameters: {{fast: 5, slow: 13}}
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4}}
  rules:
    type: btc
    market: BTCUSDT 1h
    initial_balance: 5000
    risk_per_trade: 0.01
    shorting: true
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 0}}
configurations:
  ledger.slippage_bps: 2
"""
START = date(2024, 1, 30)


class Project:
    """A declared state, a folder of klines and a database, and runs over them."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance
        self.state = folder / "algobot.yaml"
        self.klines = folder / "klines"
        self.declare(STATE.format(start=START))

    def declare(self, text: str) -> None:
        """Write the declared state."""
        self.state.write_text(text)

    def publish(self, frame: pl.DataFrame, symbol: str = "BTCUSDT", interval: str = "1h", period: str = "all") -> None:
        """Put candles into the folder, replacing a file of the same name."""
        path = self.klines / "spot" / f"{symbol}-{interval}-{period}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)

    def run(
        self, first: date, last: date | None = None, tables: Sequence[str] | None = None, **options: dict
    ) -> runs.RunResult:
        """One range run; ``options`` is run configuration per table."""
        resources = {
            "feed": runs.build_resources()["feed"].__class__(source=str(self.klines)),
            "state": runs.build_resources()["state"].__class__(path=str(self.state)),
        }
        return runs.materialise(self.instance, first, last or first, tables, options=options, resources=resources)


@pytest.fixture
def project(tmp_path: Path, database_url: str, dagster_instance: dg.DagsterInstance) -> Project:
    """A small project with ten days of hourly candles, the last of them ending mid-day."""
    made = Project(tmp_path, dagster_instance)
    made.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9 + 7))
    return made


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real candles; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ALGOBOT_DATA", default))
    if not (folder / "klines").is_dir():
        pytest.skip("real candles are not here: set ALGOBOT_DATA to their folder")
    return folder


def days(first: date, number: int) -> list[date]:
    """Consecutive days."""
    return [first + timedelta(days=i) for i in range(number)]


@pytest.fixture(scope="session")
def defs():
    """The project's definitions, as Dagster loads them."""
    return build_defs()
