"""Queue runs of the tables so that they run one at a time, oldest days first, however they were started.

Dagster's queue serialises runs with the tag `algobot/chain` (dagster.yaml limits it). Runs from the UI and backfills
do not set the tag, so this coordinator adds it when they are queued, with a priority that puts older days first. A day
therefore waits while an earlier day is queued or running.
"""

from __future__ import annotations

from datetime import date

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG, PARTITION_NAME_TAG, PRIORITY_TAG

from algobot_assets.defs.partitions import CHAIN
from algobot_assets.schema.intervals import FIRST_DAY


def place(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags to add to a run: the chain, and a priority by its first day. Empty without a partition."""
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG) or tags.get(PARTITION_NAME_TAG)
    if first is None:
        return {}
    try:
        day = date.fromisoformat(first)
    except ValueError:  # a partition of another asset
        return {}
    older_first = -(day - FIRST_DAY).days
    wanted = {**CHAIN, PRIORITY_TAG: str(older_first)}
    return {name: value for name, value in wanted.items() if name not in tags}


class ChainedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which adds runs of the tables to the chain."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag and queue the run."""
        run = context.dagster_run
        lacking = place(dict(run.tags))
        if lacking:
            self._instance.add_run_tags(run.run_id, lacking)
        return super().submit_run(context)
