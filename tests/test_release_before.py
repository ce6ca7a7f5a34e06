"""A database filled by the release before: today's code opens it with nothing stale, and can go back."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from conftest import STATE, published_candles

from algobot_assets.compute.code_version import (
    INDICATOR_SOURCES,
    STRATEGY_SOURCES,
    indicators_code_version,
    ledger_code_version,
    module_digest,
    strategy_code_version,
)
from algobot_assets.schema.tables import NINE

ROOT = Path(__file__).resolve().parents[1]
RELEASE = "3a15dab"


@pytest.fixture(scope="module")
def migration() -> ModuleType:
    """The revision that translates code versions."""
    path = ROOT / "migrations" / "versions" / "0011_code_versions.py"
    spec = importlib.util.spec_from_file_location("migration_0011", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def todays_constants() -> dict[str, Any]:
    """What the migration's constants must be; `python tests/test_release_before.py` prints it."""
    names = ("kernels", "native", "strategies.btc", "strategies.ema_cross", "strategies.macd")
    modules = [*INDICATOR_SOURCES, *STRATEGY_SOURCES]
    modules += [importlib.import_module(f"algobot_assets.compute.{name}") for name in names]
    return {
        "INDICATORS": indicators_code_version(),
        "LEDGER": ledger_code_version(),
        "STRATEGIES": {kind: strategy_code_version(kind) for kind in ("btc", "ema_cross", "macd")},
        "MODULES": {module.__name__: module_digest(module) for module in sorted(modules, key=lambda m: m.__name__)},
    }


def test_the_migration_translates_to_todays_code_versions(migration: ModuleType) -> None:
    today = todays_constants()
    assert migration.INDICATORS[1] == today["INDICATORS"]
    assert migration.LEDGER[1] == today["LEDGER"]
    assert {kind: now for kind, (_, now) in migration.STRATEGIES.items()} == today["STRATEGIES"]
    assert today["MODULES"] == migration.MODULES


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources of the release before."""
    folder = tmp_path_factory.mktemp("release")
    try:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", RELEASE, "algobot_assets", "migrations"],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the sources of the release before ({RELEASE}) are not here: {error}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


OWN = '''"""A strategy of the user's own."""

from __future__ import annotations

import numpy as np
from own_levels import level  # a module of the user's own

from algobot_assets.compute.kernels import settle
from algobot_assets.compute.strategy import BUY, SELL, Parameter, strategy


@strategy("own", parameters={"factor": Parameter(1.0, 0, 10)}, indicators=("rsi",))
def own(bars, p):
    """Buy above the level, sell below it."""
    rsi = bars.indicator("rsi")
    return bars.decide(  # layout of the user's own
        (BUY, rsi > p.factor * level()),   (SELL, rsi < p.factor * level() - 10) )
'''
LEVELS = "import own_constants as c\n\n\ndef level():\n    return c.LEVEL  # of the RSI\n"
CONSTANTS = "LEVEL = 55\n"
OWN_STATE = """  own:
    type: own
    market: BTCUSDT 1h
    initial_balance: 5000
    risk_per_trade: 0.01
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 5}
configurations:
"""

FILL = """
import sys
from datetime import date
import dagster as dg
from algobot_assets import runs
from algobot_assets.store import migrate

state, klines = sys.argv[1:]
migrate.upgrade()
resources = runs.build_resources()
with dg.DagsterInstance.ephemeral() as instance:
    result = runs.materialise(
        instance, date(2024, 1, 30), date(2024, 2, 2),
        resources={
            "feed": resources["feed"].__class__(source=klines), "state": resources["state"].__class__(path=state),
        },
    )
assert result.success, result.error
"""

REGISTER = """
import json, sys
from algobot_assets.store import migrate
from algobot_assets.store.connection import Store
from {module} import register_code

{before}
with Store.open() as store:
    register_code(store)
    with store.transaction() as connection:
        stale = connection.execute("SELECT table_name, strategy_id, day, reason FROM stale_partitions").fetchall()
print(json.dumps(stale, default=str))
"""


def run(code: str, folders: list[Path], url: str, *arguments: str) -> str:
    """Run Python code in a process of its own, with the folders first on its path."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "ALGOBOT_DATABASE_URL": url,
        "ALGOBOT_SOURCE": "binance",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folders[0],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def recorded(url: str) -> dict[str, set[str]]:
    """The code versions in lineage, by table."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT table_name, code_version FROM lineage").fetchall()
    return {table: {version for name, version in rows if name == table} for table, _ in rows}


@pytest.fixture
def today(tmp_path: Path) -> Path:
    """A folder with today's sources."""
    folder = tmp_path / "today"
    for name in ("algobot_assets", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def empty_database(new_database: Callable[[], str]) -> str:
    """The URL of a database without any table."""
    from algobot_assets.store import migrate

    url = new_database()
    migrate.downgrade(url.replace("postgresql", "postgresql+psycopg", 1))
    return url


def test_a_database_of_the_release_before_opens_with_nothing_stale(
    release: Path, today: Path, empty_database: str, tmp_path: Path
) -> None:
    url, users = empty_database, tmp_path / "users"
    users.mkdir()
    (users / "own_levels.py").write_text(LEVELS)
    (users / "own_constants.py").write_text(CONSTANTS)
    for folder in (release, today):
        (folder / "algobot_assets" / "compute" / "strategies" / "own.py").write_text(OWN)
    klines = tmp_path / "klines" / "spot"
    klines.mkdir(parents=True)
    candles = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 4)
    candles.write_parquet(klines / "BTCUSDT-1h-all.parquet")
    state = tmp_path / "algobot.yaml"
    state.write_text(STATE.format(start="2024-01-30").replace("configurations:\n", OWN_STATE))

    run(FILL, [release, users], url, str(state), str(klines.parent))
    of_the_release = recorded(url)
    assert set(of_the_release) == set(NINE)
    assert len(of_the_release["signals"]) == 3
    assert stale_partitions(url, release, users, "algobot_assets.code") == []

    upgraded = "migrate.upgrade()"
    assert stale_partitions(url, today, users, "algobot_assets.pipeline.code_versions", upgraded) == []
    of_today = recorded(url)
    computed = set(NINE) - {"configurations", "strategies", "risk_parameters", "market_data"}
    assert all(not of_today[table] & of_the_release[table] for table in computed)

    run('from algobot_assets.store import migrate\nmigrate.downgrade(revision="0010")', [today, users], url)
    assert recorded(url) == of_the_release
    assert stale_partitions(url, release, users, "algobot_assets.code") == []


def stale_partitions(url: str, code: Path, users: Path, module: str, before: str = "") -> list[Any]:
    """What the view says once the code of a folder has told the database its versions."""
    stale: list[Any] = json.loads(run(REGISTER.format(module=module, before=before), [code, users], url))
    return stale


if __name__ == "__main__":
    print(json.dumps(todays_constants(), indent=4))
