"""Sensors propose exactly what is due, once, and say what they saw."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
from conftest import START, Project

from algobot_assets.assets.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.automation.schedules import partition_maintenance, refresh
from algobot_assets.automation.sensors import staleness
from algobot_assets.definitions import defs
from algobot_assets.freshness import due
from algobot_assets.resources import DatabaseResource, StateResource
from algobot_assets.schema.tables import NINE
from algobot_assets.store.partitions import coming_months, months_present

LAST = START + timedelta(days=8)


def tick(instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()}) as context:
        return staleness(context)


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
        assert request.tags == {RANGE_START: str(day), RANGE_END: str(LAST), **CHAIN}
        tables = [key.path[-1] for key in request.asset_selection]
        assert tables == ["indicators", "signals", "trade_history", "performance_metrics", "backtest_results"]
        assert tick(instance).run_key == request.run_key, "the same thing is not asked for twice"
        assert project.run(day, LAST, tables).success
        assert due(store) is None
        assert isinstance(tick(instance), dg.SkipReason)


def test_a_proposal_waits_for_an_unfinished_run(project: Project, database_url):
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(job, tags=CHAIN, status=dg.DagsterRunStatus.STARTED)
        assert project.run(START, LAST, ["market_data"]).success
        waiting = tick(instance)
        assert isinstance(waiting, dg.SkipReason)
        assert run.run_id in waiting.skip_message


def scheduled(instance: dg.DagsterInstance, project: Project, moment: datetime) -> dg.RunRequest | dg.SkipReason:
    resources = {"database": DatabaseResource(), "state": StateResource(path=str(project.state))}
    with dg.build_schedule_context(
        instance=instance, resources=resources, scheduled_execution_time=moment
    ) as context:
        return refresh(context)


def test_refresh_covers_the_first_incomplete_day_to_today(project: Project, database_url, tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # a schedule's instance must be persistent
        noon = datetime(2024, 2, 8, 12, 5, tzinfo=UTC)
        first = scheduled(instance, project, noon)
        assert first.tags == {RANGE_START: str(START), RANGE_END: "2024-02-08", **CHAIN}
        assert [key.path[-1] for key in first.asset_selection] == list(NINE)
        assert project.run(START, LAST).success
        assert scheduled(instance, project, noon).tags[RANGE_START] == "2024-02-08"
        assert project.run(noon.date()).success
        later = scheduled(instance, project, noon + timedelta(days=1))
        assert (later.tags[RANGE_START], later.tags[RANGE_END]) == ("2024-02-08", "2024-02-09")
        complete = scheduled(instance, project, datetime(2024, 2, 7, 23, 59, tzinfo=UTC))
        assert isinstance(complete, dg.SkipReason)


def test_partitions_are_made_ahead(database_url, store):
    result = partition_maintenance.execute_in_process(resources={"database": DatabaseResource()})
    assert result.success
    with store.transaction() as connection:
        today = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()[0]
        assert months_present(connection) == coming_months(today)
