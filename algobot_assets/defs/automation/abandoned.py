"""Report runs as failed whose process died in a power cut or was killed.

Dagster would show such a run as running for ever, and all other runs of the chain would wait for it. A live run holds a
lock in the database (store/advisory_locks.py); a run without its lock for a minute is reported as failed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.store.advisory_locks import is_running
from algobot_assets.store.connection import Store

#: Minimum age of a run before it is checked, and how long its lock must be missing: a run starts before it opens the
#: database, and a server restart releases locks.
GRACE = timedelta(seconds=60)


def find_abandoned(
    instance: dg.DagsterInstance, store: Store, missing: dict[str, str], now: datetime
) -> tuple[list[dg.DagsterRun], dict[str, str]]:
    """Return runs whose process has died, and other runs without a lock, each with the time (ISO) it was first missing.

    ``missing``: the second result of the previous call.
    """
    found: list[dg.DagsterRun] = []
    still: dict[str, str] = {}
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for record in instance.get_run_records(dg.RunsFilter(statuses=statuses)):
        run = record.dagster_run
        began = datetime.fromtimestamp(record.start_time, UTC) if record.start_time else now
        if now - began < GRACE or is_running(store, run.run_id):
            continue
        since = missing.get(run.run_id, now.isoformat())
        if now - datetime.fromisoformat(since) >= GRACE:
            found.append(run)
        else:
            still[run.run_id] = since
    return found, still


@dg.sensor(
    name="abandoned_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports runs whose process was killed as failed, so that nothing waits for them.",
)
def abandoned_runs(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SkipReason:
    """Report runs whose process has died as failed, or as canceled if they were being canceled."""
    missing = json.loads(context.cursor) if context.cursor else {}
    found, still = find_abandoned(context.instance, database.store, missing, datetime.now(UTC))
    for run in found:
        sentence = "The process of this run has died (killed, or the machine restarted). What it wrote is complete."
        if run.status is dg.DagsterRunStatus.CANCELING:
            context.instance.report_run_canceled(run, sentence)
        else:
            context.instance.report_run_failed(run, sentence)
    context.update_cursor(json.dumps(still))
    if found:
        return dg.SkipReason(f"Reported as failed, their process has died: {', '.join(run.run_id for run in found)}.")
    if still:
        return dg.SkipReason(f"Process missing, will check again: {', '.join(still)}.")
    return dg.SkipReason("Every running run has its process.")
