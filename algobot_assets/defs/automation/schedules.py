"""Schedules: fresh candles and all that follows from them, the close of a day, and the care of the database.

A schedule proposes at most one run and waits while one of the chain is unfinished, so downtime ends in one run that
catches up and not in a storm of them. All times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from algobot_assets.audit.staleness import RangeRun, complete_through, first_incomplete, unsettled
from algobot_assets.defs.automation.maintenance import health, partition_maintenance, purge
from algobot_assets.defs.automation.proposals import regular, request, unfinished
from algobot_assets.defs.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.feed.open import CandleFeed
from algobot_assets.schema.symbols import delivery_of
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings

#: An answer given this long after the end of its day is taken as final: late trades are in, an outage is over.
SETTLED_AFTER = timedelta(minutes=15)


def refresh_cron(minutes: int) -> str:
    """Every so many minutes, a minute after candles close."""
    return f"1-59/{minutes} * * * *" if minutes < 60 else "1 * * * *"


@dg.schedule(
    name="refresh",
    cron_schedule=refresh_cron(Settings().refresh_minutes),
    execution_timezone="UTC",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="From the first day that is not complete to today (ALGOBOT_REFRESH_MINUTES): newly closed candles and "
    "all that follows from them.",
)
def refresh(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource, state: StateResource, feed: FeedResource
) -> dg.RunRequest | dg.SkipReason:
    """One run over the days that are not complete, today included."""
    waiting = unfinished(context.instance, "the next tick asks again")
    if waiting is not None:
        return waiting
    today = context.scheduled_execution_time.astimezone(UTC).date()
    ends = _end_of_files(feed.feed)
    if ends is not None:
        through = complete_through(database.store)
        if through is not None and through >= ends:
            return dg.SkipReason(f"The files end at {ends:%Y-%m-%d %H:%M} UTC, and everything in them is stored.")
        today = min(today, ends.date())
    first = first_incomplete(database.store) or state.load().first_day
    if first > today:
        return dg.SkipReason(f"All days up to {today} are complete.")
    run = RangeRun(NINE, first, today, "scheduled")
    return request(run, f"refresh {context.scheduled_execution_time:%Y-%m-%dT%H:%M}")


@dg.schedule(
    name="daily_close",
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Closes yesterday: once its end has settled, the exchange is asked once more for the whole day, what "
    "it says now is compared with what is stored, differences are taken over, and every check looks at the day.",
)
def daily_close(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """One run over the complete days that were last asked for before they had settled."""
    waiting = unfinished(context.instance, "the next tick asks again")
    if waiting is not None:
        return waiting
    now = context.scheduled_execution_time
    delivered = [item.symbol for item in state.load().markets if (at := delivery_of(item.symbol)) and at <= now]
    markets = [(item.symbol, item.interval) for item in state.load().markets if item.symbol not in delivered]
    found = unsettled(database.store, markets, SETTLED_AFTER)
    settled = (context.scheduled_execution_time.astimezone(UTC) - SETTLED_AFTER).date() - timedelta(days=1)
    if found is None or found[0] > settled:
        return dg.SkipReason(f"Nothing to close: all complete days up to {settled} were asked for after they settled.")
    run = RangeRun(NINE, found[0], min(found[1], settled), "closing")
    key = f"daily_close {context.scheduled_execution_time:%Y-%m-%dT%H:%M}"
    return request(run, key, {"market_data": {"from_source": True}})


def _end_of_files(feed: CandleFeed) -> datetime | None:
    """Where a folder of klines ends; None for an exchange, which is not asked: where it is down, the run says so."""
    if not feed.is_folder:
        return None
    with feed.opened() as source:
        return source.server_time()


partition_schedule = regular(
    "partition_maintenance", partition_maintenance, "10 0 * * *", "Daily: the partitions of the coming months."
)
health_schedule = regular(
    "health", health, "*/15 * * * *", "Every quarter of an hour: the database's figures, the age of the newest candles."
)
purge_schedule = regular(
    "purge",
    purge,
    "40 0 * * *",
    "Daily: Dagster's runs and events older than ALGOBOT_KEEP_RUNS_DAYS, without partition status.",
)

JOBS = (partition_maintenance, health, purge)
SCHEDULES = (refresh, daily_close, partition_schedule, health_schedule, purge_schedule)
