"""Jobs that look after the database and Dagster's own records; none of them computes a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from algobot_assets.defs.instance.records import purge_before
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.settings import Settings
from algobot_assets.store.month_partitions import MONTHS_AHEAD, coming_months, ensure_months


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


class PurgeOptions(dg.Config):
    """Run configuration of the purge."""

    keep_days: int = 0
    """Days to keep; 0: ALGOBOT_KEEP_RUNS_DAYS."""


def _purge_runs(context, config: PurgeOptions, database: DatabaseResource) -> None:
    settings = Settings()
    days = config.keep_days or settings.keep_runs_days
    before = datetime.now(UTC) - timedelta(days=days)
    done = purge_before(database.store.database, settings.dagster_database, before)
    context.log.info(
        f"before={before:%Y-%m-%d} runs={done.runs} events={done.events} checks={done.checks} kept={done.kept}"
    )
    context.add_output_metadata(
        {"runs": done.runs, "events": done.events, "check results": done.checks, "events kept for status": done.kept}
    )


# Dagster reads annotations before they are resolved
_purge_runs.__annotations__["config"] = PurgeOptions
purge_runs = dg.op(
    name="purge_runs",
    description="Deletes Dagster's finished runs and their events; the newest materialisation of each partition stays.",
)(_purge_runs)


@dg.job(name="purge", description="Keeps Dagster's own database small without losing the status of partitions.")
def purge() -> None:
    """One op; see purge_runs."""
    purge_runs()


health = dg.define_asset_job(
    "health",
    selection=dg.AssetSelection.assets("database_health")
    | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("market_data"), "newest_candle")),
    description="The database's figures, whether Dagster's catalogue agrees with the tables, and how old the newest "
    "candles are.",
)
