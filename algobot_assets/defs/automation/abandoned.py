"""Runs whose process is gone: ended by a power cut or a kill, and still called running by Dagster.

Such a run would keep its place in the chain, and everything would wait for it. A run holds a lock in the database for
as long as it lives (store/presence.py); one that has been without it for a minute is reported as failed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.store.advisory_locks import is_running
from algobot_assets.store.connection import Store

#: A run is looked at when it has run for so long, and given up when its lock has been missing for so long: a run
#: begins before it opens the database, and a restarted server gives locks back.
GRACE = timedelta(seconds=60)


def gone(
    instance: dg.DagsterInstance, store: Store, missing: dict[str, str], now: datetime
) -> tuple[list[dg.DagsterRun], dict[str, str]]:
    """Runs that are over without having said so, and since when (ISO) others have been missing.

    ``missing``: what the call before gave.
    """
    found, still = [], {}
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
    description="Reports runs as failed whose process was killed, so that nothing waits for them.",
)
def abandoned_runs(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SkipReason:
    """Report them, and say which."""
    missing = json.loads(context.cursor) if context.cursor else {}
    found, still = gone(context.instance, database.store, missing, datetime.now(UTC))
    for run in found:
        sentence = "The process of this run is gone (killed, or the machine was restarted); what it wrote is complete."
        if run.status is dg.DagsterRunStatus.CANCELING:
            context.instance.report_run_canceled(run, sentence)
        else:
            context.instance.report_run_failed(run, sentence)
    context.update_cursor(json.dumps(still))
    if found:
        return dg.SkipReason(f"Reported as failed, as their process is gone: {', '.join(run.run_id for run in found)}.")
    if still:
        return dg.SkipReason(f"Without a process, looked at again: {', '.join(still)}.")
    return dg.SkipReason("Every running run has its process.")
