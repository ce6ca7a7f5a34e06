"""Schedules: fresh candles and all that follows from them, and the partitions of the months to come.

A schedule proposes at most one run and waits while one of the chain is unfinished, so downtime ends in one run that
catches up and not in a storm of them.
"""

from __future__ import annotations

from datetime import UTC

import dagster as dg

from algobot_assets.automation.sensors import range_request, unfinished
from algobot_assets.freshness import RangeRun, first_incomplete
from algobot_assets.resources import DatabaseResource, StateResource
from algobot_assets.schema.tables import NINE
from algobot_assets.store.partitions import MONTHS_AHEAD, coming_months, ensure_months


@dg.schedule(
    name="refresh",
    cron_schedule="*/5 * * * *",
    execution_timezone="UTC",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="From the first day that is not complete to today, every five minutes: newly closed candles and all "
    "that follows from them.",
)
def refresh(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """One run over the days that are not complete, today included."""
    waiting = unfinished(context.instance)
    if waiting is not None:
        return dg.SkipReason(f"Run {waiting} is not finished; the next tick asks again.")
    today = context.scheduled_execution_time.astimezone(UTC).date()
    first = first_incomplete(database.store) or state.load().first_day
    if first > today:
        return dg.SkipReason(f"All days up to {today} are complete.")
    run = RangeRun(NINE, first, today, "scheduled")
    return range_request(run, f"refresh {context.scheduled_execution_time:%Y-%m-%dT%H:%M}")


@dg.op(description="Makes the monthly leaves of market_data, indicators and signals ahead of need.")
def make_partitions(context, database: DatabaseResource) -> None:
    """Leaves of this month and the next ones, by the database's clock."""
    with database.store.transaction() as connection:
        today = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()[0]
    made = ensure_months(database.store, coming_months(today))
    names = ", ".join(f"{month:%Y-%m}" for month in made)
    context.log.info(f"Made {names or 'nothing'}; months ahead: {MONTHS_AHEAD}.")


@dg.job(name="partition_maintenance", description="Keeps the partitions of the coming months made.")
def partition_maintenance() -> None:
    """One op; see make_partitions."""
    make_partitions()


partition_schedule = dg.ScheduleDefinition(
    name="partition_maintenance",
    job=partition_maintenance,
    cron_schedule="10 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Daily: the partitions of the coming months.",
)

JOBS = (partition_maintenance,)
SCHEDULES = (refresh, partition_schedule)
