"""A week left alone, by Dagster's own daemons at an accelerated clock: scheduler, sensors and queue tick at the times
they are given, in a code server and with run processes as `algobot up` has them, against the simulated exchange and its
faults. It ends with every table complete, nothing stale, old months archived, and one alert for each real problem.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import ScheduleIterationTimes, launch_scheduled_runs
from test_alerts import Webhook, webhook  # noqa: F401

from algobot_assets.audit.gaps import missing_days
from algobot_assets.audit.staleness import due, stale
from algobot_assets.audit.verify import verify
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import project_root
from algobot_assets.store.archive import archived_months
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import months_present
from algobot_assets.store.retention.policy import cutoff

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
STEP, DAYS = 3, 7
TODAY = datetime.now(UTC).date()
#: A first of a month, so that the monthly retention falls into the week. Retention counts from the database's clock,
#: which is not accelerated: the week's own months must be younger than what it keeps.
START = datetime.combine(cutoff(TODAY, 20), datetime.min.time(), UTC)
#: The daily market reaches back over the first month that is kept.
KEPT = cutoff(TODAY, 24)
OLDEST = KEPT - timedelta(days=40)
STATE = f"""
markets:
  - {{symbol: BTCUSDT, interval: 1h, start: {(START - timedelta(days=4)).date()}}}
  - {{symbol: ETHUSDT, interval: 4h, start: {(START - timedelta(days=2)).date()}}}
  - {{symbol: ETHUSDT, interval: 1d, start: {OLDEST}}}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 1h
    parameters: {{fast: 5, slow: 13}}
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4}}
configurations: {{}}
"""
SECOND = f"""  rules:
    type: btc
    market: BTCUSDT 1h
    initial_balance: 5000
    risk_per_trade: 0.01
    effective_from: {(START + timedelta(days=1)).date()}
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 0}}
configurations: {{}}
"""
LOG = logging.getLogger("dagster.daemon")


def four_hours(target: str) -> bool:
    """Whether a request is for candles of ETHUSDT 4h."""
    return "klines" in target and "ETHUSDT" in target and "interval=4h" in target


class Daemons:
    """The daemons' iterations, at the times they are given; runs are processes and take the time they take."""

    def __init__(self, context: WorkspaceProcessContext, exchange: SimulatedExchange) -> None:
        self.context, self.exchange = context, exchange
        self.instance = context.instance
        self._times: dict[str, ScheduleIterationTimes] = {}
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=5)

    def step(self, now: datetime) -> None:
        """What falls into the hours that begin at ``now``: ticks of schedules, then of sensors until they rest."""
        self.exchange.set_time(now)
        with freeze_time(now), ThreadPoolExecutor(1) as submit:
            list(
                launch_scheduled_runs(
                    self.context, LOG, now, self._times, submit_threadpool_executor=submit, max_catchup_runs=1
                )
            )
        self.finish(now)
        for minutes in (1, 7, 13):
            with freeze_time(now + timedelta(minutes=minutes)):
                list(execute_sensor_iteration(self.context, LOG, None, None))
            self.finish(now)

    def finish(self, now: datetime) -> None:
        """Let the queue start what it may until nothing is left."""
        until = time.monotonic() + 600
        unfinished = dg.RunsFilter(
            statuses=[s for s in dg.DagsterRunStatus if s not in (dg.DagsterRunStatus.SUCCESS,
                      dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)]
        )  # fmt: skip
        while self.instance.get_runs_count(unfinished):
            with freeze_time(now):
                list(self._queue.run_iteration(self.context, fixed_iteration_time=now.timestamp()))
            time.sleep(0.2)
            assert time.monotonic() < until, self.instance.get_runs(unfinished)


@pytest.fixture
def daemons(server, database_url, tmp_path, monkeypatch, webhook) -> Iterator[Daemons]:  # noqa: F811
    name = f"dagster_week_{os.getpid()}"
    exchange = SimulatedExchange(now=START)
    url = exchange.start()
    for key in ("EXCHANGE_URL", "FUTURES_URL", "ARCHIVE_URL"):
        monkeypatch.setenv(f"ALGOBOT_{key}", url)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")
    monkeypatch.setenv("ALGOBOT_DAGSTER_DATABASE", name)
    monkeypatch.setenv("ALGOBOT_STATE_FILE", str(tmp_path / "algobot.yaml"))
    (tmp_path / "algobot.yaml").write_text(STATE)
    root = project_root()
    target = ModuleTarget("algobot_assets.definitions", None, str(root), "algobot_assets.definitions")
    with (
        dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(root))) as instance,
        create_test_daemon_workspace_context(target, instance) as context,
    ):
        yield Daemons(context, exchange)
    exchange.stop()
    server.drop_database(name)


def test_a_week_left_alone_ends_complete(daemons: Daemons, webhook: type[Webhook], database_url, tmp_path):  # noqa: F811
    def by_hand(statement: str, opened: datetime) -> None:
        with psycopg.connect(database_url) as connection:
            assert connection.execute(statement, (opened,)).rowcount

    asleep = set(range(30, 40))  # nine hours without power
    for number in range(0, DAYS * 24, STEP):
        match number:
            case 12:
                daemons.exchange.faults.append(faults.error("klines", 503, times=2))  # passes by itself
            case 45:
                daemons.exchange.faults.append(faults.location("", times=100_000))  # nothing answers for half a day
            case 57:
                daemons.exchange.faults.clear()
            case 60:
                by_hand("""UPDATE market_data SET close = high WHERE "timestamp" = %s""", START + 29 * HOUR)
            case 69:
                by_hand("""DELETE FROM market_data WHERE symbol = 'BTCUSDT' AND "timestamp" = %s""", START + 7 * HOUR)
            case 75:
                by_hand("""DELETE FROM signals WHERE "timestamp" = %s""", START + 9 * HOUR)
            case 90:
                text = (tmp_path / "algobot.yaml").read_text().replace("configurations: {}\n", SECOND)
                (tmp_path / "algobot.yaml").write_text(text)
            case 99:
                webhook.down = True
                daemons.exchange.faults.append(
                    faults.error(four_hours, 400, -1121, "Invalid symbol.", times=100_000)  # one market of three
                )
            case 117:
                webhook.down = False
                daemons.exchange.faults.clear()
        if number not in asleep:
            daemons.step(START + number * HOUR)
    end = START + timedelta(days=DAYS)
    for minutes in (0, 25, 80):  # the last day is closed once it has settled
        daemons.step(end + timedelta(minutes=minutes))
    assert [(item["event"], item["assets"]) for item in webhook.received] == [
        ("failure", ["market_data"]),
        ("recovery", ["market_data"]),
        ("failure", ["market_data"]),
        ("recovery", ["market_data"]),
    ], "\n".join(map(str, webhook.received))
    with Store.open() as store:
        assert stale(store).is_empty() and due(store) is None
        markets = {("BTCUSDT", "1h"), ("ETHUSDT", "4h"), ("ETHUSDT", "1d")}
        assert missing_days(store, markets) == []
        with store.transaction() as connection:
            rows = connection.execute(
                """SELECT table_name, symbol, "interval", count(*), count(*) FILTER (
                          WHERE complete_through >= (day + 1)::timestamp AT TIME ZONE 'UTC')
                     FROM lineage WHERE day < %s AND table_name = ANY(%s) GROUP BY 1, 2, 3""",
                (end.date(), list(NINE)),
            ).fetchall()
            archived, kept = archived_months(connection), months_present(connection)
        assert all(days == complete for _, _, _, days, complete in rows), rows
        assert {row[0] for row in rows} == set(NINE)
        first = {"1h": (START - timedelta(days=4)).date(), "4h": (START - timedelta(days=2)).date(), "1d": OLDEST}
        assert {row[1:4] for row in rows if row[0] == "market_data"} == {
            (symbol, interval, (end.date() - first[interval]).days) for symbol, interval in markets
        }
        assert archived[0] == OLDEST.replace(day=1) and max(archived) < KEPT == kept[0]
        found = list(verify(store, OLDEST, end.date() - timedelta(days=1)))
        assert found and all(item.difference is None for item in found)
    jobs = {run.tags.get("dagster/schedule_name") for run in daemons.instance.get_runs()}
    assert {"refresh", "daily_close", "retention", "health", "purge", "partition_maintenance", "report"} <= jobs
