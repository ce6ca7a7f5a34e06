"""Request runs from schedules and sensors, never twice for the same cause.

A proposal has a key that identifies its cause. While a run with that key is queued or running, or once it has
succeeded, the proposal is not repeated. After a failure it is repeated twice, with growing delays, because most
failures are temporary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from algobot_assets.audit.staleness import RangeRun
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START

#: Tag with the key of the proposal: Dagster's runs are the record of proposals.
PROPOSAL = "algobot/proposal"
#: Delays before a failed proposal is repeated. After the last one, only a changed cause leads to a new proposal.
AGAIN_AFTER = (timedelta(minutes=10), timedelta(hours=1))
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def key_of(name: str, seen: Iterable[object]) -> str:
    """Return a key for the cause: equal only for the same items in the same order."""
    text = "\n".join(str(item) for item in seen)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def unfinished(instance: dg.DagsterInstance, then: str) -> dg.SkipReason | None:
    """Return a reason to skip while a run of the chain is unfinished. ``then`` describes the next step."""
    runs = instance.get_runs(dg.RunsFilter(tags=dict(CHAIN), statuses=list(UNFINISHED)), limit=1)
    return dg.SkipReason(f"Run {runs[0].run_id} has not finished; {then}.") if runs else None


def regular(name: str, job: Any, cron: str, description: str) -> dg.ScheduleDefinition:
    """Return a UTC schedule that runs ``job`` (of ops or assets) unconditionally; it is on by default."""
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )


def request(run: RangeRun, key: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> dg.RunRequest:
    """Build Dagster's request for the run; ``options`` is run configuration per table."""
    config = {"ops": {table: {"config": dict(values)} for table, values in options.items()}} if options else {}
    return dg.RunRequest(
        run_key=key,
        run_config=config,
        asset_selection=[dg.AssetKey(table) for table in run.tables],
        tags={
            RANGE_START: run.first.isoformat(),
            RANGE_END: run.last.isoformat(),
            PROPOSAL: key.rpartition(" #")[0] or key,
            **CHAIN,
        },
    )


def propose(
    instance: dg.DagsterInstance,
    run: RangeRun,
    key: str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    now: datetime | None = None,
) -> dg.RunRequest | dg.SkipReason:
    """Request the run, or return the reason not to. ``now`` defaults to the clock of this machine."""
    before = instance.get_run_records(dg.RunsFilter(tags={PROPOSAL: key}), limit=len(AGAIN_AFTER) + 1)
    what = f"{run.reason}: {run.first} to {run.last}"
    if not before:
        return request(run, key, options)
    last = before[0].dagster_run
    if last.status in UNFINISHED:
        return dg.SkipReason(f"{what}. Run {last.run_id} is on it.")
    if last.status is dg.DagsterRunStatus.SUCCESS:
        return dg.SkipReason(f"{what}. Run {last.run_id} succeeded but did not change this; see its checks.")
    if last.status is dg.DagsterRunStatus.CANCELED:
        return dg.SkipReason(f"{what}. Run {last.run_id} was cancelled; start it by hand if you want it.")
    if len(before) > len(AGAIN_AFTER):
        return dg.SkipReason(
            f"{what}. It failed {len(before)} times, last in run {last.run_id}, and is not retried until something "
            "changes. Fix the cause, then start it by hand."
        )
    ended = datetime.fromtimestamp(before[0].end_time or before[0].update_timestamp.timestamp(), UTC)
    due = ended + AGAIN_AFTER[len(before) - 1]
    if (now or datetime.now(UTC)) < due:
        return dg.SkipReason(f"{what}. Run {last.run_id} failed; it is retried at {due:%H:%M} UTC.")
    return request(run, f"{key} #{len(before) + 1}", options)
