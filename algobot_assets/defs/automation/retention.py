"""The monthly retention: one run that moves every month that is due to the archive."""

from __future__ import annotations

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
    """The day from which months are counted back, 2024-01-31; none: that of the database's clock."""


def _archive_months(context, config: RetentionOptions, database: DatabaseResource) -> None:
    """All months that are due, oldest first; fails at the end where one could not go, with the sentence why."""
    register_code(database.store)
    today = date.fromisoformat(config.today) if config.today else None
    rows = size = months = 0
    kept = []
    for outcome in archive_due_months(database.store, Settings(), today, context.log.info):
        if outcome.kept is not None:
            context.log.warning(f"{outcome.month:%Y-%m} stays: {outcome.kept}")
            kept.append(f"{outcome.month:%Y-%m} stays: {outcome.kept}")
        elif outcome.moved is not None:
            months, rows, size = months + 1, rows + outcome.moved.rows, size + outcome.moved.bytes
            context.log.info(f"{outcome.month:%Y-%m}: {outcome.moved.rows:,} rows archived and dropped.")
    context.add_output_metadata({"months": months, "rows": rows, "MB": size / 2**20, "kept": len(kept)})
    if kept:
        raise dg.Failure("\n".join(kept), allow_retries=False)


# Dagster reads annotations before they are resolved
_archive_months.__annotations__["config"] = RetentionOptions
archive_months = dg.op(
    name="archive_months",
    description="Moves months of market_data, indicators and signals that are older than the setting to the archive.",
)(_archive_months)


@dg.job(name="retention", description="Moves old months to the archive; reading them goes on as before.")
def retention() -> None:
    """One op; see archive_months."""
    archive_months()


retention_schedule = regular(
    "retention",
    retention,
    "30 2 2 * *",
    "Monthly: months older than ALGOBOT_RETENTION_MONTHS leave the database for the archive.",
)
