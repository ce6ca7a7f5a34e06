"""The database's figures, their thresholds and history; late candles; Dagster's old records; drift."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from conftest import START, Project
from dagster._core.instance.ref import InstanceRef

from algobot_assets.defs.assets.monitoring import drift_sentences
from algobot_assets.defs.checks.candle_age import find_late_markets
from algobot_assets.defs.instance.records import drift, purge_before
from algobot_assets.defs.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.settings import Settings, project_root
from algobot_assets.store import health

LAST = START + timedelta(days=8)
RESOURCES = {"database": DatabaseResource(), "feed": FeedResource(), "state": StateResource()}


@pytest.fixture
def real(server, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in PostgreSQL, as dagster.yaml describes it, in a database of the test's own."""
    name = f"dagster_{os.getpid()}_{tmp_path.name[-20:]}"
    monkeypatch.setenv("ALGOBOT_DAGSTER_DATABASE", name)
    root = str(project_root())
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=root)) as instance:
        yield instance
    server.drop_database(name)


def test_health_figures_and_their_history_are_recorded(project: Project, database_url, store):
    assert project.run(START, LAST).success
    found = health.measure(store, ["postgres", "not_there"])
    assert found.value("database_bytes") > 1e6 and found.value("database_bytes", "postgres") > 1e6
    assert found.value("database_bytes", "not_there") is None
    assert found.value("connections") >= 1 and found.value("stale_partitions") == 0
    assert set(found.of("bytes")) >= {*MONTHLY, "trade_history", "lineage"}
    assert found.of("candle_age_seconds").keys() == {"BTCUSDT 1h"}
    assert found.leaves.filter(pl.col("table") == "market_data")["leaf"].to_list() == [
        "market_data_2024_01",
        "market_data_2024_02",
    ]
    health.record(store, found)
    with store.transaction() as connection:
        connection.execute("UPDATE health_history SET measured_at = measured_at - interval '7 days', value = value / 2")
    health.record(store, found)
    was = health.figures_before(store, timedelta(days=7) - timedelta(minutes=1))
    assert was["database_bytes", ""] == pytest.approx(found.value("database_bytes") / 2)
    assert health.history(store, "database_bytes")["value"].len() == 2


def test_health_history_is_thinned_out(store):
    found = health.Health((health.Measure("database_bytes", 1.0),), pl.DataFrame(), pl.DataFrame())
    with store.transaction() as connection:
        connection.execute(
            """INSERT INTO health_history (measure, subject, measured_at, value)
               SELECT 'database_bytes', '', date_trunc('day', now()) - make_interval(days => d, mins => -15 * q), 1
                 FROM generate_series(20, 22) AS d, generate_series(0, 3) AS q
               UNION ALL SELECT 'database_bytes', '', now() - interval '900 days', 1"""
        )
    health.record(store, found)
    assert health.history(store, "database_bytes").height == 3 + 1


def test_exceeded_thresholds_name_a_remedy(store):
    found = health.measure(store)
    assert [sentence for sentence in health.find_problems(found) if "partition_maintenance" in sentence]
    leaf = {"table": "market_data", "leaf": "market_data_2024_01", "rows": 1, "bytes": 1, "live": 100_000}

    def health_of(figures: dict[str, float], dead: int) -> health.Health:
        measures = tuple(health.Measure(*item) for item in figures.items())
        return health.Health(measures, pl.DataFrame([leaf | {"dead": dead}]), pl.DataFrame())

    values = {
        "partitions_ahead": 2,
        "connections": 95,
        "connections_allowed": 100,
        "cache_hit_ratio": 0.5,
        "blocks_asked": 2e6,
        "oldest_transaction_seconds": 7200,
        "transaction_ids_used": 1.5e9,
    }
    sentences = health.find_problems(health_of(values, 90_000))
    words = ("max_connections", "shared_buffers", "xact_start", "VACUUM FREEZE", "VACUUM (ANALYZE) market_data_2024_01")
    assert len(sentences) == len(words)
    for word, sentence in zip(words, sentences, strict=True):
        assert word in sentence
    well = {"connections": 5, "cache_hit_ratio": 0.99, "oldest_transaction_seconds": 1, "transaction_ids_used": 1}
    assert health.find_problems(health_of(values | well, 1)) == []


def test_a_late_candle_is_named_and_a_halted_market_is_not(project: Project, database_url, store):
    assert project.run(START, START + timedelta(days=9)).success
    market, allowance = [("BTCUSDT", "1h")], timedelta(minutes=15)
    ends = datetime(2024, 2, 8, 7, tzinfo=UTC)
    assert find_late_markets(store, market, ends + timedelta(minutes=75), allowance) == []
    (sentence,) = find_late_markets(store, market, ends + timedelta(minutes=76), allowance)
    assert "BTCUSDT 1h" in sentence and "2024-02-08 07:00" in sentence and "1:16:00" in sentence
    assert find_late_markets(store, [("ETHUSDT", "1h")], ends + timedelta(days=9), allowance) == []
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO symbol_rules (symbol, effective_from, status) VALUES ('BTCUSDT', '2024-02-08', 'BREAK')"
        )
    assert find_late_markets(store, market, ends + timedelta(days=9), allowance) == []


def test_the_health_job_and_the_check_of_drift(project: Project, database_url, store, real, monkeypatch, defs):
    monkeypatch.setenv("ALGOBOT_SOURCE", str(project.klines))
    monkeypatch.setenv("ALGOBOT_STATE_FILE", str(project.state))
    project.instance = real
    assert project.run(START, START + timedelta(days=9)).success
    job = defs.resolve_job_def("health")
    result = job.execute_in_process(instance=real)
    checks = {item.check_name: item for item in result.get_asset_check_evaluations()}
    assert checks.keys() == {"within_thresholds", "catalogue_agrees", "newest_candle"}
    assert checks["catalogue_agrees"].passed and checks["newest_candle"].passed
    (event,) = result.asset_materializations_for_node("database_health")
    assert event.metadata["rows market data"].value >= 0
    name = Settings().dagster_database
    with store.transaction() as connection:
        connection.execute("DELETE FROM lineage WHERE table_name = 'signals' AND day = '2024-02-02'")
    (sentence,) = drift_sentences(store, name)
    assert "signals 2024-02-02 to 2024-02-02" in sentence and "algobot backfill" in sentence
    assert drift({"signals": {START}}, {}) == {"signals": ([], [(START, START)])}
    before, after = START - timedelta(days=9), START + timedelta(days=9)
    assert drift({"signals": {START}}, {"signals": {before, START, after}}) == {}, "outside of what is recorded"


def test_a_purge_keeps_the_status_of_partitions(project: Project, database_url, store, real, defs):
    project.instance = real
    first = project.run(START, START + timedelta(days=2), ["market_data"])
    second = project.run(START + timedelta(days=1), START + timedelta(days=4), ["market_data"])
    key = dg.AssetKey("market_data")
    wanted = {str(START + timedelta(days=i)) for i in range(5)}
    assert set(real.get_materialized_partitions(key)) == wanted
    name, moment = Settings().dagster_database, datetime.now(UTC)
    waiting = real.create_run_for_job(defs.resolve_implicit_global_asset_job_def())
    assert purge_before(store.database, name, moment - timedelta(hours=1)).runs == 0
    done = purge_before(store.database, name, moment + timedelta(hours=1))
    assert done.runs == 2 and done.events > 20
    assert done.kept >= 5, "the newest materialisation of each day"
    assert set(real.get_materialized_partitions(key)) == wanted
    assert real.get_run_by_id(first.run_id) is None and real.get_run_by_id(second.run_id) is None
    assert real.get_run_by_id(waiting.run_id) is not None
    newest = real.get_latest_materialization_event(key)
    assert newest.run_id == second.run_id
    checks = real.event_log_storage.get_asset_check_summary_records([dg.AssetCheckKey(key, "every_market_proceeded")])
    assert all(record.last_check_execution_record is not None for record in checks.values())
    assert real.get_status_by_partition(key, [str(START)], defs.resolve_asset_graph().get(key).partitions_def)
    assert purge_before(store.database, name, moment + timedelta(hours=1)).runs == 0
    third = project.run(START, START, ["market_data"])
    assert third.success and set(real.get_materialized_partitions(key)) == wanted


def test_the_purge_job_reads_its_setting(database_url, real, monkeypatch, defs):
    job = defs.resolve_job_def("purge")
    assert job.execute_in_process(instance=real).success
    assert real.get_runs_count() == 1, "its own run is not over, so it stays"
