"""A week left alone: every schedule and sensor ticks against the simulated exchange under an injected clock, faults and
all. It ends with every table complete, nothing stale, old months archived, and one alert for each real problem.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from dagster._core.instance.ref import InstanceRef
from test_alerts import Webhook, webhook  # noqa: F401

from algobot_assets import runs
from algobot_assets.assets.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.automation.abandoned import GRACE, gone
from algobot_assets.automation.alerts import alerts
from algobot_assets.automation.schedules import JOBS, daily_close, refresh
from algobot_assets.automation.sensors import declared_state, gaps, staleness
from algobot_assets.definitions import defs
from algobot_assets.feed import faults
from algobot_assets.feed.simulated import SimulatedExchange
from algobot_assets.freshness import due, stale
from algobot_assets.holes import holes
from algobot_assets.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.schema.tables import NINE
from algobot_assets.store.archive import archived_months
from algobot_assets.store.connection import Store
from algobot_assets.store.partitions import months_present
from algobot_assets.verify import verify

pytestmark = pytest.mark.slow

START, DAYS = datetime(2024, 3, 1, tzinfo=UTC), 7
HOUR = timedelta(hours=1)
STATE = """
markets:
  - {symbol: BTCUSDT, interval: 1h, start: 2024-02-26}
  - {symbol: ETHUSDT, interval: 4h, start: 2024-02-28}
  - {symbol: ETHUSDT, interval: 1d, start: 2022-01-20}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 1h
    parameters: {fast: 5, slow: 13}
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4}
configurations: {}
"""
SECOND = """  rules:
    type: btc
    market: BTCUSDT 1h
    initial_balance: 5000
    risk_per_trade: 0.01
    effective_from: 2024-03-02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 0}
configurations: {}
"""


def four_hours(target: str) -> bool:
    """Whether a request is for candles of ETHUSDT 4h."""
    return "klines" in target and "ETHUSDT" in target and "interval=4h" in target


class Daemon:
    """What Dagster's daemon does, one tick after the other, at the times it is given."""

    def __init__(self, instance: dg.DagsterInstance, exchange: SimulatedExchange) -> None:
        self.instance = instance
        self.exchange = exchange
        self.cursors: dict[str, str | None] = {}
        self.started: list[tuple[str, str, str]] = []

    def hour(self, now: datetime, *, runs_jobs: bool = False) -> None:
        """What falls into the hour that begins at ``now``; the week is looked at every second hour."""
        self.exchange.set_time(now + timedelta(minutes=1))
        self.schedule(refresh, now + timedelta(minutes=1))
        for sensor in (declared_state, gaps, staleness):
            self.sensor(sensor)
        self.exchange.set_time(now + timedelta(minutes=20))
        self.schedule(daily_close, now + timedelta(minutes=20))
        self.sensor(staleness)
        if runs_jobs:
            for job in JOBS:
                assert defs.resolve_job_def(job.name).execute_in_process(instance=self.instance).success
        self.alerts()

    def schedule(self, schedule: dg.ScheduleDefinition, moment: datetime) -> None:
        """One tick of a schedule."""
        wanted = {"database": DatabaseResource(), "state": StateResource(), "feed": FeedResource()}
        resources = {name: wanted[name] for name in schedule.required_resource_keys}
        with dg.build_schedule_context(
            instance=self.instance, resources=resources, scheduled_execution_time=moment
        ) as context:
            self.start(schedule.name, schedule(context))

    def sensor(self, sensor: dg.SensorDefinition) -> None:
        """One tick of a sensor."""
        wanted = {"database": DatabaseResource(), "state": StateResource()}
        resources = {name: wanted[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(instance=self.instance, resources=resources) as context:
            self.start(sensor.name, sensor(context))

    def start(self, name: str, answer: dg.RunRequest | dg.SkipReason) -> None:
        """The run that was asked for, at once."""
        if isinstance(answer, dg.SkipReason):
            return
        first, last = (date.fromisoformat(answer.tags[tag]) for tag in (RANGE_START, RANGE_END))
        self.started.append((name, str(first), str(last)))
        options = {table: found["config"] for table, found in answer.run_config.get("ops", {}).items()}
        tables = [key.path[-1] for key in answer.asset_selection]
        runs.materialise(self.instance, first, last, tables, options=options, tags=answer.tags)

    def alerts(self) -> None:
        """A tick of the alerts."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursors.get("alerts")) as context:
            alerts(context)
            self.cursors["alerts"] = context.cursor


@pytest.fixture
def daemon(server, database_url, tmp_path, monkeypatch) -> Iterator[Daemon]:
    name = f"dagster_week_{os.getpid()}"
    exchange = SimulatedExchange(now=START)
    url = exchange.start()
    for key in ("EXCHANGE_URL", "FUTURES_URL", "ARCHIVE_URL"):
        monkeypatch.setenv(f"ALGOBOT_{key}", url)
    monkeypatch.setenv("ALGOBOT_DAGSTER_DATABASE", name)
    monkeypatch.setenv("ALGOBOT_STATE_FILE", str(tmp_path / "algobot.yaml"))
    (tmp_path / "algobot.yaml").write_text(STATE)
    root = str(runs.project_root())
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=root)) as instance:
        yield Daemon(instance, exchange)
    exchange.stop()
    server.drop_database(name)


def test_a_week_left_alone(daemon: Daemon, webhook: type[Webhook], database_url, tmp_path):  # noqa: F811
    def by_hand(statement: str) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute(statement)

    daemon.alerts()
    asleep = set(range(30, 40))  # ten hours without power
    for number in range(0, DAYS * 24, 2):
        now = START + number * HOUR
        match number:
            case 26:  # 02:30 on the second, when the schedule of the retention ticks
                config = {"ops": {"archive_months": {"config": {"today": str(now.date())}}}}
                job = defs.resolve_job_def("retention")
                assert job.execute_in_process(instance=daemon.instance, run_config=config).success
            case 12:
                daemon.exchange.faults.append(faults.error("klines", 503, times=2))  # passes by itself
            case 50:
                daemon.exchange.faults.append(faults.location("", times=100_000))  # nothing answers for six hours
            case 56:
                daemon.exchange.faults.clear()
            case 60:
                by_hand("""UPDATE market_data SET close = high WHERE "timestamp" = '2024-03-02T05:00Z'""")
            case 70:
                by_hand("""DELETE FROM market_data WHERE symbol = 'BTCUSDT' AND "timestamp" = '2024-03-01T07:00Z'""")
            case 76:
                by_hand("""DELETE FROM signals WHERE "timestamp" = '2024-03-01T09:00Z'""")
            case 80:  # a run whose process was killed
                job = defs.resolve_implicit_global_asset_job_def()
                dead = daemon.instance.create_run_for_job(job, tags=CHAIN)
                daemon.instance.report_dagster_event(
                    dg.DagsterEvent("PIPELINE_START", job.name, message=""), dead.run_id
                )
            case 82:
                with Store.open() as store:
                    later = datetime.now(UTC) + 2 * GRACE
                    _, missing = gone(daemon.instance, store, {}, later)
                    found, _ = gone(daemon.instance, store, missing, later + GRACE)
                assert [run.run_id for run in found] == [dead.run_id]
                daemon.instance.report_run_failed(dead, "The process of this run is gone.")
            case 90:
                text = (tmp_path / "algobot.yaml").read_text().replace("configurations: {}\n", SECOND)
                (tmp_path / "algobot.yaml").write_text(text)
            case 100:
                webhook.down = True
                daemon.exchange.faults.append(
                    faults.error(four_hours, 400, -1121, "Invalid symbol.", times=100_000)  # one market of three
                )
            case 118:
                webhook.down = False
                daemon.exchange.faults.clear()
        if number not in asleep:
            daemon.hour(now, runs_jobs=number % 24 == 0 and number > 0)
    end = START + timedelta(days=DAYS)
    for _ in range(3):
        daemon.hour(end)
    assert [(item["event"], item["assets"]) for item in webhook.received] == [
        ("failure", ["market_data"]),
        ("recovery", ["market_data"]),
        ("failure", ["market_data"]),
        ("recovery", ["market_data"]),
    ], "\n".join(str(item) for item in [*webhook.received, *daemon.started[-40:]])
    with Store.open() as store:
        assert stale(store).is_empty() and due(store) is None
        markets = {("BTCUSDT", "1h"), ("ETHUSDT", "4h"), ("ETHUSDT", "1d")}
        assert holes(store, markets) == []
        with store.transaction() as connection:
            rows = connection.execute(
                """SELECT table_name, symbol, "interval", count(*), count(*) FILTER (
                          WHERE complete_through >= (day + 1)::timestamp AT TIME ZONE 'UTC')
                     FROM lineage WHERE day < %s AND table_name = ANY(%s) GROUP BY 1, 2, 3""",
                (end.date(), list(NINE)),
            ).fetchall()
            rest = connection.execute(
                """SELECT count(*) FROM sources WHERE kind = 'rest' AND day < %s
                      AND requested_at < (day + 1)::timestamp AT TIME ZONE 'UTC' + interval '15 minutes'""",
                (end.date(),),
            ).fetchone()
        assert all(days == complete for _, _, _, days, complete in rows), rows
        assert {row[0] for row in rows} == set(NINE)
        assert {row[1:4] for row in rows if row[0] == "market_data"} == {
            ("BTCUSDT", "1h", 11),
            ("ETHUSDT", "4h", 9),
            ("ETHUSDT", "1d", (end.date() - date(2022, 1, 20)).days),
        }
        assert rest == (0,), "every day was closed"
        with store.transaction() as connection:
            archived, kept = archived_months(connection), months_present(connection)
        assert archived == [date(2022, 1, 1), date(2022, 2, 1)] and kept[0] == date(2022, 3, 1)
        found = list(verify(store, date(2022, 1, 20), end.date() - timedelta(days=1)))
        assert found and all(item.difference is None for item in found)
        compared = sum(item.rows for item in found if item.table == "market_data")
        assert compared > (end.date() - date(2022, 1, 20)).days, "what is archived was compared as well"
    asked = [name for name, _, _ in daemon.started]
    assert asked.count("daily_close") >= DAYS - 1 and asked.count("gaps") >= 1 and asked.count("declared_state") == 1
    after_the_cut = [item for item in daemon.started if item[0] == "refresh"]
    assert len(after_the_cut) <= DAYS * 12 - len(asleep) // 2 + 3, "downtime is caught up with by one run"
