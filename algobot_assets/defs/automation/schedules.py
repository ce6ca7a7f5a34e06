"""Schedules: refresh the tables, close the day, and maintain the database. All times are UTC.

A schedule requests at most one run and waits while a run of the chain is unfinished, so after downtime one run catches
up on everything.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import dagster as dg

from algobot_assets.audit.staleness import RangeRun, unsettled
from algobot_assets.defs.automation.maintenance import health, partition_maintenance, purge
from algobot_assets.defs.automation.proposals import regular, request, unfinished
from algobot_assets.defs.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.feed.open import CandleFeed
from algobot_assets.pipeline.days import outdated_markets
from algobot_assets.schema.symbols import delivery_of
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings

#: Candles fetched this long after the end of their day are final: late trades are included, and outages are over.
SETTLED_AFTER = timedelta(minutes=15)


def refresh_cron(minutes: int) -> str:
    """Return the cron expression for a run every ``minutes``, one minute after candles close."""
    return f"1-59/{minutes} * * * *" if minutes < 60 else "1 * * * *"


@dg.schedule(
    name="refresh",
    cron_schedule=refresh_cron(Settings().refresh_minutes),
    execution_timezone="UTC",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every ALGOBOT_REFRESH_MINUTES: fetches newly closed candles and computes all tables, from the first "
    "incomplete day to today.",
)
def refresh(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource, state: StateResource, feed: FeedResource
) -> dg.RunRequest | dg.SkipReason:
    """Request one run from the first incomplete day to today."""
    waiting = unfinished(context.instance, "the next tick tries again")
    if waiting is not None:
        return waiting
    now = context.scheduled_execution_time.astimezone(UTC)
    today, markets = now.date(), state.load().markets
    ends = _end_of_files(feed.feed)
    if ends is not None:
        today = min(today, (ends - timedelta(microseconds=1)).date())
    with feed.feed.opened() if ends else nullcontext() as source:
        outdated = outdated_markets(
            database.store,
            markets,
            today,
            lambda market: source.known_through(market.symbol, market.interval) if source else now,
        )
    if not outdated:
        start = min(market.start for market in markets)
        if start > today:
            return dg.SkipReason(f"The declared markets start on {start}; nothing to fetch before.")
        if ends is not None:
            return dg.SkipReason(f"The files end at {ends:%Y-%m-%d %H:%M} UTC, and all their candles are stored.")
        return dg.SkipReason(f"All days up to {today} are complete.")
    first = min(outdated.values())
    run = RangeRun(NINE, first, today, "scheduled")
    options: dict[str, dict[str, object]] = {}
    if len(outdated) < len(markets):  # the others have nothing new to compute from
        options = {table: {"markets": sorted(outdated)} for table in NINE[3:]}
    return request(run, f"refresh {context.scheduled_execution_time:%Y-%m-%dT%H:%M}", options)


@dg.schedule(
    name="daily_close",
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Closes yesterday: once the day has settled, fetches it again, compares it with the database, stores "
    "differences and runs every check.",
)
def daily_close(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """Request one run over the complete days that were last fetched before their candles were final."""
    waiting = unfinished(context.instance, "the next tick tries again")
    if waiting is not None:
        return waiting
    now = context.scheduled_execution_time
    delivered = [item.symbol for item in state.load().markets if (at := delivery_of(item.symbol)) and at <= now]
    markets = [(item.symbol, item.interval) for item in state.load().markets if item.symbol not in delivered]
    found = unsettled(database.store, markets, SETTLED_AFTER)
    settled = (context.scheduled_execution_time.astimezone(UTC) - SETTLED_AFTER).date() - timedelta(days=1)
    if found is None or found[0] > settled:
        return dg.SkipReason(f"Nothing to close: all complete days through {settled} were fetched after they settled.")
    run = RangeRun(NINE, found[0], min(found[1], settled), "closing")
    key = f"daily_close {context.scheduled_execution_time:%Y-%m-%dT%H:%M}"
    return request(run, key, {"market_data": {"from_source": True}})


def _end_of_files(feed: CandleFeed) -> datetime | None:
    """Return the end of a folder of klines, or None for an exchange, which only the run contacts."""
    if not feed.is_folder:
        return None
    with feed.opened() as source:
        return source.server_time()


partition_schedule = regular(
    "partition_maintenance", partition_maintenance, "10 0 * * *", "Daily: creates the partitions of the coming months."
)
health_schedule = regular(
    "health", health, "*/15 * * * *", "Every 15 minutes: measures the database and the age of the newest candles."
)
purge_schedule = regular(
    "purge",
    purge,
    "40 0 * * *",
    "Daily: deletes Dagster's runs and events older than ALGOBOT_KEEP_RUNS_DAYS; keeps partition status.",
)

JOBS = (partition_maintenance, health, purge)
SCHEDULES = (refresh, daily_close, partition_schedule, health_schedule, purge_schedule)
