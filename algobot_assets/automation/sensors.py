"""Sensors: what the state of the tables calls for, as range runs by tag.

A sensor asks the database, proposes one run, and says in its skip reason what it saw. It never asks twice for the
same thing: a run's key is a digest of what called for it, so a proposal that failed is not repeated for ever.
"""

from __future__ import annotations

import hashlib

import dagster as dg

from algobot_assets.assets.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.freshness import RangeRun, due, stale
from algobot_assets.resources import DatabaseResource

_UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def range_request(run: RangeRun, key: str) -> dg.RunRequest:
    """The run as Dagster is asked for it: one run over the days, in its place in the chain of runs."""
    return dg.RunRequest(
        run_key=key,
        asset_selection=[dg.AssetKey(table) for table in run.tables],
        tags={RANGE_START: run.first.isoformat(), RANGE_END: run.last.isoformat(), **CHAIN},
    )


def unfinished(instance: dg.DagsterInstance) -> str | None:
    """The id of a queued or running run of the chain; a proposal waits for it."""
    runs = instance.get_runs(dg.RunsFilter(tags=dict(CHAIN), statuses=list(_UNFINISHED)), limit=1)
    return runs[0].run_id if runs else None


@dg.sensor(
    name="staleness",
    target=dg.AssetSelection.groups("market", "trading"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Computes again what no longer matches what it was computed from: changed data, parameters, code or "
    "carried state, rows changed by hand, and what is missing.",
)
def staleness(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    """One run from the first stale day on, or the reason why none is due."""
    waiting = unfinished(context.instance)
    if waiting is not None:
        return dg.SkipReason(f"Run {waiting} is not finished; what is stale after it is asked for then.")
    run = due(database.store)
    if run is None:
        return dg.SkipReason("Nothing is stale.")
    seen = stale(database.store)
    key = hashlib.sha256(seen.write_csv().encode()).hexdigest()[:16]
    context.log.info(f"{run.reason}: {run.first} to {run.last}")
    return range_request(run, f"staleness {run.first} {key}")


SENSORS = (staleness,)
