"""The run queue: every run of the tables gets its place in the chain, however it was started.

Dagster's queue starts runs of one chain one at a time (dagster.yaml limits the tag). A run from the UI, a backfill of
days with holes between them, and a schedule's run do not know of that tag; here they are given it as they are queued,
with a priority that lets older days go first. A day whose predecessor is queued or running therefore waits for it.
"""

from __future__ import annotations

from datetime import date

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG, PARTITION_NAME_TAG, PRIORITY_TAG

from algobot_assets.defs.partitions import CHAIN
from algobot_assets.schema.intervals import FIRST_DAY


def place(tags: dict[str, str]) -> dict[str, str]:
    """The tags that a run of these tags lacks: its chain, and a priority by its first day. None without a partition."""
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG) or tags.get(PARTITION_NAME_TAG)
    if first is None:
        return {}
    try:
        day = date.fromisoformat(first)
    except ValueError:  # a partition of something else
        return {}
    older_first = -(day - FIRST_DAY).days
    wanted = {**CHAIN, PRIORITY_TAG: str(older_first)}
    return {name: value for name, value in wanted.items() if name not in tags}


class ChainedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which gives each run of the tables its place in the chain."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Queue the run."""
        run = context.dagster_run
        lacking = place(dict(run.tags))
        if lacking:
            self._instance.add_run_tags(run.run_id, lacking)
        return super().submit_run(context)
