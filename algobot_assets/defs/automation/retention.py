"""The job that moves old months to the archive, and its monthly schedule."""

# no postponed annotations: Dagster reads the classes of an op's context and configuration from its annotations
from datetime import date

import dagster as dg

from algobot_assets.defs.automation.proposals import regular
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.pipeline.code_versions import register_code
from algobot_assets.settings import Settings
from algobot_assets.store.retention.policy import archive_due_months


class RetentionOptions(dg.Config):
    """Run configuration of the retention."""

    today: str = ""
    """The day from which months are counted back, YYYY-MM-DD; empty: today by the database's clock."""


@dg.op(
    description="Moves months of candles, indicators and signals older than ALGOBOT_RETENTION_MONTHS to the archive."
)
def archive_months(context: dg.OpExecutionContext, config: RetentionOptions, database: DatabaseResource) -> None:
    """Archive all due months, oldest first; fail at the end if one could not be archived, and say why."""
    register_code(database.store)
    today = date.fromisoformat(config.today) if config.today else None
    rows = size = months = 0
    kept = []
    for outcome in archive_due_months(database.store, Settings(), today, context.log.info):
        if outcome.kept is not None:
            kept.append(f"{outcome.month:%Y-%m} not archived: {outcome.kept}")
            context.log.warning(kept[-1])
        elif outcome.moved is not None:
            months, rows, size = months + 1, rows + outcome.moved.rows, size + outcome.moved.bytes
            context.log.info(f"{outcome.month:%Y-%m}: {outcome.moved.rows:,} rows archived and dropped.")
    context.add_output_metadata({"months": months, "rows": rows, "MB": size / 2**20, "kept": len(kept)})
    if kept:
        raise dg.Failure("\n".join(kept), allow_retries=False)


@dg.job(name="retention", description="Moves old months to the archive, where they stay readable.")
def retention() -> None:
    """Run archive_months."""
    archive_months()


retention_schedule = regular(
    "retention",
    retention,
    "30 2 2 * *",
    "Monthly: moves months older than ALGOBOT_RETENTION_MONTHS from the database to the archive.",
)
