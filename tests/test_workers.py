"""Runs side by side: how a range is split, and whole runs in Celery's workers, one of them killed in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
import yaml
from conftest import published_candles

from algobot_assets.cli import parallel_runs as workers
from algobot_assets.cli import runs
from algobot_assets.cli.app import main
from algobot_assets.cli.run_parts import Part, split_months
from algobot_assets.defs.automation import abandoned
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings
from algobot_assets.store import migrate
from algobot_assets.store.connection import Store
from algobot_assets.store.server import control as servers

ROOT = Path(__file__).resolve().parents[1]
CELERY = ROOT / "deploy" / "celery"
FIRST, LAST = date(2024, 1, 1), date(2024, 4, 30)
PATIENCE = 240.0
STATE = """
markets:
  - {symbol: AUSDT, interval: 1m, start: 2024-01-01}
  - {symbol: BUSDT, interval: 1m, start: 2024-01-01}
strategies:
  cross:
    type: ema_cross
    market: AUSDT 1m
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}
  other:
    type: macd
    market: BUSDT 1m
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}
"""


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 50])
def test_parts_cover_the_range_once_and_share_no_database_month(parts: int):
    first, last = date(2023, 11, 17), date(2024, 9, 3)
    found = split_months(first, last, parts)
    assert found[0].first == first and found[-1].last == last and len(found) == min(parts, 11)
    for one, after in pairwise(found):
        assert after.first == one.last + timedelta(days=1) and after.first.day == 1
    lengths = [(p.last.year - p.first.year) * 12 + p.last.month - p.first.month + 1 for p in found]
    assert sum(lengths) == 11 and max(lengths) - min(lengths) <= 1
    assert split_months(last, last, parts) == [Part(last, last)]


def test_the_instance_of_workers_is_that_of_the_checkout_with_a_launcher():
    """One would be changed without the other, and runs would behave differently by where they run."""
    of_workers = yaml.safe_load((CELERY / "dagster.yaml").read_text())
    launcher = of_workers.pop("run_launcher")
    assert of_workers == yaml.safe_load((ROOT / "dagster.yaml").read_text())
    worker = yaml.safe_load((CELERY / "worker.yaml").read_text())["execution"]["config"]
    assert {name: worker[name] for name in ("broker", "backend")} == launcher["config"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(ready: Callable[[], object], what: str) -> object:
    """What ``ready`` gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out waiting until {what}")


@pytest.fixture
def broker() -> Iterator[str]:
    """The URL of a Redis of the test's own, on loopback, that keeps nothing."""
    pytest.importorskip("dagster_celery", reason="dagster-celery is not installed: pip install -e '.[celery]'")
    pytest.importorskip("redis", reason="the Python client of Redis is not installed: pip install -e '.[celery]'")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here (Debian's package of that name)")
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    until(answers, "the broker answers")
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture
def candles(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a server of its own, and four months of minutes of two markets."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "klines" / "spot").mkdir(parents=True)
    minutes = ((LAST - FIRST).days + 1) * 1440
    for seed, symbol in enumerate(("AUSDT", "BUSDT")):
        frame = published_candles(datetime(2024, 1, 1, tzinfo=UTC), minutes, 1, seed)
        frame.write_parquet(folder / "klines" / "spot" / f"{symbol}-1m-all.parquet")
    (folder / "algobot.yaml").write_text(STATE)
    monkeypatch.delenv("ALGOBOT_DATABASE_URL", raising=False)
    for name, value in {
        "ALGOBOT_HOME": str(folder / "home"),
        "ALGOBOT_STATE_FILE": str(folder / "algobot.yaml"),
        "ALGOBOT_SOURCE": str(folder / "klines"),
    }.items():
        monkeypatch.setenv(name, value)
    server = servers.ensure_running(Settings(), durable=False)
    for name in ("algobot", "alone"):
        server.ensure_database(name)
        migrate.upgrade(server.sqlalchemy_url(name))
    yield folder
    servers.discard(Settings())


@pytest.fixture
def home(broker: str, candles: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with an instance that has Celery's launcher."""
    (candles / "instance").mkdir()
    shutil.copy(CELERY / "dagster.yaml", candles / "instance" / "dagster.yaml")
    monkeypatch.setenv("ALGOBOT_BROKER_URL", broker)
    monkeypatch.setenv("DAGSTER_HOME", str(candles / "instance"))
    return candles


@pytest.fixture
def celery(home: Path) -> Iterator[list[subprocess.Popen]]:
    """Two workers, each with one run at a time."""
    command = [str(Path(sys.executable).with_name("dagster-celery")), "worker", "start", "-A", "dagster_celery.app"]
    command += ["-y", str(CELERY / "worker.yaml"), "--", "--concurrency", "1"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    processes = []
    for number in (1, 2):
        with open(home / f"worker{number}.log", "wb") as log:
            processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PATH": path}
                )
            )
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def recorded(name: str) -> dict[tuple, tuple]:
    """Every partition of every table: rows and digest of what was computed."""
    settings = Settings(database=name)
    with Store.open(settings) as store, store.transaction() as connection:
        rows = connection.execute(
            'SELECT table_name, symbol, "interval", strategy_id, day, rows, output_digest FROM lineage'
        ).fetchall()
    return {row[:5]: row[5:] for row in rows}


def process_of(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process in which a run's steps are."""
    for entry in instance.all_logs(run_id):
        if "(pid: " in entry.message and entry.message.startswith("Executing steps"):
            return int(entry.message.rpartition("(pid: ")[2].rstrip(")"))
    return None


@pytest.mark.slow
def test_tables_by_two_processes_are_those_of_one(candles: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    days = [str(FIRST), str(LAST)]
    main(["backfill", *days, "--workers", "2"])
    begun = [line for line in capsys.readouterr().err.splitlines() if ": run " in line]
    runs_of = {line.rpartition(": run ")[0]: line.rpartition(" ")[2] for line in begun}
    by_month, by_market = sorted(runs_of)[0::3], sorted(runs_of)[1:3]
    assert by_month == ["2024-01-01 to 2024-02-29", "2024-03-01 to 2024-04-30"]
    assert by_market == [f"{FIRST} to {LAST}, {market} 1m" for market in ("AUSDT", "BUSDT")]
    by_two = recorded("algobot")
    with Store.open() as store, store.transaction() as connection:
        wrote = connection.execute(
            """SELECT DISTINCT table_name = 'market_data', symbol, strategy_id, run_id FROM lineage
                WHERE table_name NOT IN ('configurations', 'strategies', 'risk_parameters')"""
        ).fetchall()
    assert {run for *_, run in wrote} == set(runs_of.values()), "the run after them found everything stored"
    for market, part in zip(("AUSDT", "BUSDT"), by_market, strict=True):
        assert {run for candles, symbol, _, run in wrote if not candles and symbol == market} == {runs_of[part]}
    monkeypatch.setenv("ALGOBOT_DATABASE", "alone")
    monkeypatch.setenv("ALGOBOT_DAGSTER_DATABASE", "dagster_alone")
    main(["backfill", *days])
    alone = recorded("alone")
    assert alone == by_two and len({key[0] for key in alone}) == len(NINE)


@pytest.mark.slow
# the launcher registers its task anew with each run it launches
@pytest.mark.filterwarnings("ignore:Task name 'execute_job' is already registered")
def test_a_killed_workers_run_is_begun_again_and_the_result_is_that_of_one_process(
    home: Path, celery: list[subprocess.Popen], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(abandoned, "GRACE", timedelta(seconds=4))
    said: list[str] = []
    killed: list[int] = []
    with dg.DagsterInstance.get() as instance, Store.open() as store:

        def kill() -> None:
            """The first worker that has stored a window, with its run unfinished."""

            def begun() -> int | None:
                with store.transaction() as connection:
                    rows = connection.execute("SELECT DISTINCT run_id FROM lineage").fetchall()
                found = [process_of(instance, run_id) for (run_id,) in rows]
                return next((pid for pid in found if pid is not None), None)

            group = os.getpgid(until(begun, "a window is stored"))
            assert group in [process.pid for process in celery]
            os.killpg(group, signal.SIGKILL)
            killed.append(group)

        killer = threading.Thread(target=kill)
        killer.start()
        done = workers.fetch_in_parallel(instance, store, FIRST, LAST, 2, said.append)
        killer.join()
        assert len(killed) == 1 and len(done) == 2
        begun = [line.rpartition(" ")[2] for line in said if ": run " in line]
        ended = {run_id: instance.get_run_by_id(run_id).status for run_id in begun}
        assert sorted(status.value for status in ended.values()) == ["FAILURE", "SUCCESS", "SUCCESS"], said

        # what carries state goes through its days in order: one run, in the worker that is left
        (whole,) = workers.launch_parts(instance, store, [Part(FIRST, LAST)], NINE, said.append)
        assert process_of(instance, whole) != os.getpid()
        assert instance.get_run_by_id(whole).tags["dagster-celery/task_id"]

    monkeypatch.setenv("ALGOBOT_DATABASE", "alone")
    monkeypatch.setenv("ALGOBOT_DAGSTER_DATABASE", "dagster_alone")
    monkeypatch.delenv("DAGSTER_HOME")
    with runs.instance(Settings()) as instance:
        assert runs.materialise(instance, FIRST, LAST).success
    alone = recorded("alone")
    assert len({key[0] for key in alone}) == len(NINE)
    assert recorded("algobot") == alone
