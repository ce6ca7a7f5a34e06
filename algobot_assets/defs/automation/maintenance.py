"""Jobs that maintain the database and Dagster's own records."""

# no postponed annotations: Dagster reads the classes of an op's context and configuration from its annotations
from datetime import UTC, datetime, timedelta

import dagster as dg

from algobot_assets.defs.instance.records import purge_before
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.month_partitions import MONTHS_AHEAD, coming_months, ensure_months


@dg.op(description="Creates the coming monthly partitions of market_data, indicators and signals.")
def make_partitions(context: dg.OpExecutionContext, database: DatabaseResource) -> None:
    """Create the partitions of this month and the next ones, by the database's clock."""
    with database.store.transaction() as connection:
        today = catalogue.now(connection).date()
    made = ensure_months(database.store, coming_months(today))
    names = ", ".join(f"{month:%Y-%m}" for month in made)
    context.log.info(f"Created {names or 'nothing'}; months ahead: {MONTHS_AHEAD}.")


@dg.job(name="partition_maintenance", description="Creates the partitions of the coming months.")
def partition_maintenance() -> None:
    """Run make_partitions."""
    make_partitions()


class PurgeOptions(dg.Config):
    """Run configuration of the purge."""

    keep_days: int = 0
    """Days to keep; 0 means ALGOBOT_KEEP_RUNS_DAYS."""


@dg.op(description="Deletes Dagster's finished runs and their events but the newest materialisation of each partition.")
def purge_runs(context: dg.OpExecutionContext, config: PurgeOptions, database: DatabaseResource) -> None:
    """Delete runs older than the configured number of days."""
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


@dg.job(name="purge", description="Keeps Dagster's own database small without losing the status of partitions.")
def purge() -> None:
    """Run purge_runs."""
    purge_runs()


health = dg.define_asset_job(
    "health",
    selection=dg.AssetSelection.assets("database_health")
    | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("market_data"), "newest_candle")),
    description="Measures the database, compares Dagster's catalogue with the tables, and checks the age of the newest "
    "candles.",
)
