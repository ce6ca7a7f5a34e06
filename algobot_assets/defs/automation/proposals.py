"""How schedules and sensors ask for a run: by range tags, in its place in the chain, and never twice for one thing.

A proposal has a key that says what called for it. While a run with that key is queued, runs or has succeeded, it is
not asked for again; one that failed is tried again twice, ever later, because most failures pass by themselves.
What is proposed, and when, is the affair of schedules and sensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from algobot_assets.audit.staleness import RangeRun
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START

#: Runs carry what called for them; so the database of runs is the memory of what was asked.
PROPOSAL = "algobot/proposal"
#: How long after its failure a proposal is made again; after the last one it is not, until what calls for it differs.
AGAIN_AFTER = (timedelta(minutes=10), timedelta(hours=1))
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def key_of(name: str, seen: Iterable[object]) -> str:
    """A key for what was seen: the same only for the same things in the same order."""
    text = "\n".join(str(item) for item in seen)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def unfinished(instance: dg.DagsterInstance, then: str) -> dg.SkipReason | None:
    """Why to skip while a run of the chain is queued or runs; ``then``: what happens after it, in words."""
    runs = instance.get_runs(dg.RunsFilter(tags=dict(CHAIN), statuses=list(UNFINISHED)), limit=1)
    return dg.SkipReason(f"Run {runs[0].run_id} is not finished; {then}.") if runs else None


def regular(name: str, job: Any, cron: str, description: str) -> dg.ScheduleDefinition:
    """A schedule in UTC, on by default, that runs ``job`` (of ops or of assets) and asks nothing first."""
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )


def request(run: RangeRun, key: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> dg.RunRequest:
    """The run as Dagster is asked for it; ``options`` is run configuration per table."""
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
    """The run, or why it is not asked for (again). ``now``: default the clock of this machine."""
    before = instance.get_run_records(dg.RunsFilter(tags={PROPOSAL: key}), limit=len(AGAIN_AFTER) + 1)
    what = f"{run.reason}: {run.first} to {run.last}"
    if not before:
        return request(run, key, options)
    last = before[0].dagster_run
    if last.status in UNFINISHED:
        return dg.SkipReason(f"{what}. Run {last.run_id} does it.")
    if last.status is dg.DagsterRunStatus.SUCCESS:
        return dg.SkipReason(f"{what}. Run {last.run_id} succeeded and it is still so; its checks say why.")
    if last.status is dg.DagsterRunStatus.CANCELED:
        return dg.SkipReason(f"{what}. Run {last.run_id} was cancelled; start it by hand if it is wanted.")
    if len(before) > len(AGAIN_AFTER):
        return dg.SkipReason(
            f"{what}. It was tried {len(before)} times in vain, last by run {last.run_id}; it is not asked for again "
            "until something changes. Remove the cause, then start it by hand."
        )
    ended = datetime.fromtimestamp(before[0].end_time or before[0].update_timestamp.timestamp(), UTC)
    due = ended + AGAIN_AFTER[len(before) - 1]
    if (now or datetime.now(UTC)) < due:
        return dg.SkipReason(f"{what}. Run {last.run_id} failed; the next try is at {due:%H:%M} UTC.")
    return request(run, f"{key} #{len(before) + 1}", options)
