"""Sensors propose exactly what is due, once, and say what they saw."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import psycopg
import pytest
from conftest import START, Project, published_candles

from algobot_assets.audit.staleness import RangeRun, due
from algobot_assets.defs.automation.abandoned import GRACE, find_abandoned
from algobot_assets.defs.automation.maintenance import partition_maintenance
from algobot_assets.defs.automation.proposals import AGAIN_AFTER, PROPOSAL, UNFINISHED, propose
from algobot_assets.defs.automation.schedules import daily_close, refresh, refresh_cron
from algobot_assets.defs.automation.sensors import declared_state, gaps, staleness
from algobot_assets.defs.instance.queue import place
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.defs.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.errors import SettingsError
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings
from algobot_assets.store.advisory_locks import hold_run_lock, is_running
from algobot_assets.store.month_partitions import coming_months, months_present

LAST = START + timedelta(days=8)


def tick(instance: dg.DagsterInstance, sensor=staleness, state: str = "") -> dg.RunRequest | dg.SkipReason:
    resources = {"database": DatabaseResource()}
    if sensor is not staleness:
        resources["state"] = StateResource(path=state)
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        return sensor(context)


def test_the_staleness_sensor_proposes_one_range_run(project: Project, database_url, store):
    with dg.DagsterInstance.ephemeral() as instance:
        assert project.run(START, LAST).success
        nothing = tick(instance)
        assert isinstance(nothing, dg.SkipReason) and nothing.skip_message == "Nothing is stale."
        day = START + timedelta(days=3)
        with psycopg.connect(database_url) as connection:
            four = datetime(day.year, day.month, day.day, 4, tzinfo=UTC)
            connection.execute('DELETE FROM indicators WHERE "timestamp" = %s', (four,))
        request = tick(instance)
        assert request.tags == {RANGE_START: str(day), RANGE_END: str(LAST), PROPOSAL: request.run_key, **CHAIN}
        tables = [key.path[-1] for key in request.asset_selection]
        assert tables == ["indicators", "signals", "trade_history", "performance_metrics", "backtest_results"]
        assert tick(instance).run_key == request.run_key, "the same thing is not asked for twice"
        assert project.run(day, LAST, tables).success
        assert due(store) is None
        assert isinstance(tick(instance), dg.SkipReason)


def test_a_proposal_waits_for_an_unfinished_run(project: Project, database_url, defs):
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(job, tags=CHAIN, status=dg.DagsterRunStatus.STARTED)
        assert project.run(START, LAST, ["market_data"]).success
        waiting = tick(instance)
        assert isinstance(waiting, dg.SkipReason)
        assert run.run_id in waiting.skip_message


def scheduled(
    instance: dg.DagsterInstance, project: Project, moment: datetime, schedule=refresh
) -> dg.RunRequest | dg.SkipReason:
    resources = {"database": DatabaseResource(), "state": StateResource(path=str(project.state))}
    if schedule is refresh:
        resources["feed"] = FeedResource()
    with dg.build_schedule_context(instance=instance, resources=resources, scheduled_execution_time=moment) as context:
        return schedule(context)


def test_refresh_covers_the_first_incomplete_day_to_today(project: Project, database_url, tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # a schedule's instance must be persistent
        noon = datetime(2024, 2, 8, 12, 5, tzinfo=UTC)
        first = scheduled(instance, project, noon)
        assert first.tags == {RANGE_START: str(START), RANGE_END: "2024-02-08", PROPOSAL: first.run_key, **CHAIN}
        assert [key.path[-1] for key in first.asset_selection] == list(NINE)
        assert project.run(START, LAST).success
        assert scheduled(instance, project, noon).tags[RANGE_START] == "2024-02-08"
        assert project.run(noon.date()).success
        later = scheduled(instance, project, noon + timedelta(days=1))
        assert (later.tags[RANGE_START], later.tags[RANGE_END]) == ("2024-02-08", "2024-02-09")
        complete = scheduled(instance, project, datetime(2024, 2, 7, 23, 59, tzinfo=UTC))
        assert isinstance(complete, dg.SkipReason)


def test_refresh_of_files_ends_where_they_end(project: Project, database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("ALGOBOT_SOURCE", str(project.klines))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        moment = datetime(2026, 1, 1, 12, 1, tzinfo=UTC)
        assert scheduled(instance, project, moment).tags[RANGE_END] == "2024-02-08"
        assert project.run(START, date(2024, 2, 8)).success
        nothing = scheduled(instance, project, moment)
        assert isinstance(nothing, dg.SkipReason) and "2024-02-08 07:00" in nothing.skip_message


def test_the_period_of_the_refresh_is_a_setting():
    assert refresh_cron(5) == "1-59/5 * * * *" and refresh_cron(60) == "1 * * * *"
    assert Settings(refresh_minutes=15).refresh_minutes == 15
    for minutes in (1, 4, 7, 90):
        with pytest.raises(SettingsError, match="REFRESH_MINUTES"):
            Settings(refresh_minutes=minutes)


def test_the_close_asks_once_more_for_days_that_had_not_settled(project: Project, database_url, store, tmp_path):
    assert project.run(START, LAST).success

    def asked(day: date, moment: datetime) -> None:
        with store.transaction() as connection:
            connection.execute("UPDATE sources SET kind = 'rest', requested_at = %s WHERE day = %s", (moment, day))

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        at = datetime(2024, 2, 6, 0, 20, tzinfo=UTC)
        nothing = scheduled(instance, project, at, daily_close)
        assert isinstance(nothing, dg.SkipReason)
        asked(date(2024, 2, 4), datetime(2024, 2, 5, 9, tzinfo=UTC))  # long after its end
        asked(date(2024, 2, 5), datetime(2024, 2, 6, 0, 1, tzinfo=UTC))
        request = scheduled(instance, project, at, daily_close)
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024-02-05", "2024-02-05")
        assert request.run_config == {"ops": {"market_data": {"config": {"from_source": True}}}}
        early = scheduled(instance, project, datetime(2024, 2, 6, 0, 10, tzinfo=UTC), daily_close)
        assert isinstance(early, dg.SkipReason), "the day has not settled"
        asked(date(2024, 2, 5), datetime(2024, 2, 6, 0, 20, tzinfo=UTC))
        assert isinstance(scheduled(instance, project, at, daily_close), dg.SkipReason)


def test_missing_candles_are_fetched_and_confirmed_gaps_are_not(project: Project, database_url, store):
    candles = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9 + 7)
    hours = [round(datetime(2024, 2, 3, hour, tzinfo=UTC).timestamp() * 1000) for hour in (3, 4)]
    project.publish(candles.filter(~pl.col("open_time").is_in(hours)))
    state = str(project.state)
    with dg.DagsterInstance.ephemeral() as instance:
        assert project.run(START, LAST).success
        nothing = tick(instance, gaps, state)
        assert isinstance(nothing, dg.SkipReason), "the source confirmed that they do not exist"
        with store.transaction() as connection:
            connection.execute("DELETE FROM gaps")
        request = tick(instance, gaps, state)
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024-02-03", "2024-02-03")
        assert [key.path[-1] for key in request.asset_selection] == ["market_data"]
        again = request.run_config["ops"]["market_data"]["config"]
        assert project.run(date(2024, 2, 3), tables=["market_data"], market_data=again).success
        assert isinstance(tick(instance, gaps, state), dg.SkipReason)
        with store.transaction() as connection:
            connection.execute("DELETE FROM lineage WHERE table_name = 'market_data' AND day = '2024-02-05'")
            connection.execute("""DELETE FROM market_data WHERE "timestamp" = '2024-02-01T05:00Z'""")
        request = tick(instance, gaps, state)
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024-02-01", "2024-02-01"), "oldest first"
        assert project.run(date(2024, 2, 1), tables=["market_data"], market_data=again).success
        assert tick(instance, gaps, state).tags[RANGE_START] == "2024-02-05"
        assert project.run(date(2024, 2, 5), tables=["market_data"]).success
        assert isinstance(tick(instance, gaps, state), dg.SkipReason)


def test_a_new_version_is_stored_and_a_correction_waits(project: Project, database_url, store):
    state = str(project.state)
    text = project.state.read_text()
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(tick(instance, declared_state, state), dg.SkipReason), "the refresh begins"
        assert project.run(START, LAST).success
        nothing = tick(instance, declared_state, state)
        assert nothing.skip_message == "Everything declared is stored."
        versions = "  ledger.slippage_bps: [{value: 2}, {value: 3, effective_from: 2024-02-04}]"
        project.declare(text.replace("  ledger.slippage_bps: 2", versions))
        request = tick(instance, declared_state, state)
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024-02-04", str(LAST))
        assert project.run(date(2024, 2, 4), LAST).success
        assert isinstance(tick(instance, declared_state, state), dg.SkipReason)
        assert due(store) is None
        project.declare(project.state.read_text().replace("initial_balance: 5000", "initial_balance: 6000"))
        waits = tick(instance, declared_state, state)
        assert isinstance(waits, dg.SkipReason)
        assert "initial_balance 5000 -> 6000" in waits.skip_message and "algobot apply" in waits.skip_message
        project.declare("markets: [")
        assert "cannot be read" in tick(instance, declared_state, state).skip_message


def test_a_new_market_is_fetched_from_its_start(project: Project, database_url):
    with dg.DagsterInstance.ephemeral() as instance:
        assert project.run(START, LAST).success
        more = "  - {symbol: ETHUSDT, interval: 4h, start: 2024-02-02}\nstrategies:"
        project.declare(project.state.read_text().replace("strategies:", more))
        request = tick(instance, declared_state, str(project.state))
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024-02-02", str(LAST))


def test_a_proposal_is_not_repeated_while_its_run_is_unfinished(defs):
    run = RangeRun(("market_data",), START, LAST, "a reason")
    job = defs.resolve_implicit_global_asset_job_def()
    for status in (status for status in UNFINISHED if status is not dg.DagsterRunStatus.QUEUED):  # needs a code server
        with dg.DagsterInstance.ephemeral() as instance:
            asked = propose(instance, run, "key")
            made = instance.create_run_for_job(job, tags=asked.tags, status=status)
            again = propose(instance, run, "key", now=datetime.now(UTC) + timedelta(days=30))
            assert isinstance(again, dg.SkipReason), f"a run that is {status.value} is on it"
            assert f"Run {made.run_id} is on it" in again.skip_message
            assert isinstance(propose(instance, run, "other"), dg.RunRequest)


def test_a_failed_run_is_proposed_again_a_limited_number_of_times(defs):
    run = RangeRun(("market_data",), START, LAST, "a reason")
    job = defs.resolve_implicit_global_asset_job_def()

    def fail(instance: dg.DagsterInstance, asked: dg.RunRequest) -> datetime:
        made = instance.create_run_for_job(job, tags=asked.tags, status=dg.DagsterRunStatus.STARTED)
        assert isinstance(propose(instance, run, "key"), dg.SkipReason), "it runs"
        instance.report_run_failed(made)
        return datetime.now(UTC)

    with dg.DagsterInstance.ephemeral() as instance:
        asked = propose(instance, run, "key")
        assert asked.run_key == "key"
        for number, wait in enumerate(AGAIN_AFTER, start=2):
            ended = fail(instance, asked)
            assert isinstance(propose(instance, run, "key", now=ended), dg.SkipReason), "not at once"
            asked = propose(instance, run, "key", now=ended + wait + timedelta(seconds=1))
            assert asked.run_key == f"key #{number}" and asked.tags[PROPOSAL] == "key"
        never = propose(instance, run, "key", now=fail(instance, asked) + timedelta(days=30))
        assert isinstance(never, dg.SkipReason) and "failed 3 times" in never.skip_message


def test_every_run_of_the_tables_gets_its_place_in_the_chain():
    older, newer = place({RANGE_START: "2024-01-01"}), place({"dagster/partition": "2024-01-02"})
    assert older["algobot/chain"] == newer["algobot/chain"] == "all"
    assert int(older["dagster/priority"]) > int(newer["dagster/priority"])
    assert place({}) == {} and place({"dagster/partition": "BTCUSDT"}) == {}
    assert "dagster/priority" not in place({RANGE_START: "2024-01-01", "dagster/priority": "5"})


def test_a_run_without_a_process_is_found_and_a_living_one_is_not(store, defs):
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        dead, alive = (instance.create_run_for_job(job, tags=CHAIN) for _ in range(2))
        for run in (dead, alive):
            instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job.name, message=""), run.run_id)
        with hold_run_lock(store.database, alive.run_id):
            now = datetime.now(UTC) + 2 * GRACE
            found, missing = find_abandoned(instance, store, {}, now)
            assert found == [] and list(missing) == [dead.run_id], "a restarted server gives locks back"
            found, missing = find_abandoned(instance, store, missing, now + GRACE)
            assert [run.run_id for run in found] == [dead.run_id] and missing == {}
        assert not is_running(store, alive.run_id)


def test_partitions_are_made_ahead(database_url, store):
    result = partition_maintenance.execute_in_process(resources={"database": DatabaseResource()})
    assert result.success
    with store.transaction() as connection:
        today = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()[0]
        assert months_present(connection) == coming_months(today)
