"""Backfill with several runs at once: candles split by months, computed tables by markets.

The instance's launcher starts the runs: as processes on this machine by default, on Celery workers or in pods if
dagster.yaml configures them. Months of candles are independent and may be fetched in any order. Tables that carry state
need their days in order, so all days of a market are in one run. If two runs reach the same month, the writers'
lock serialises them, and from then on they are a month apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from algobot_assets.cli.run_parts import Part, split_markets, split_months
from algobot_assets.declared.model import DeclaredState
from algobot_assets.defs.automation.abandoned import find_abandoned
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.errors import AlgobotError
from algobot_assets.settings import project_root
from algobot_assets.store.connection import Store

#: Tables split by months.
CANDLES = ("market_data",)
#: Tables split by markets. They read the small tables of the declared state, which must be stored first.
COMPUTED = ("indicators", "signals", "trade_history", "performance_metrics", "backtest_results")
#: Attempts per part. A worker may be killed; the rows it wrote stay.
ATTEMPTS = 3
_POLL_SECONDS = 1.0
#: Runs handed to the launcher at once.
_LAUNCHES = 8
_JOB = "__ASSET_JOB"
#: Runs log to Dagster only, not to the terminals of workers.
_CONFIG = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
Say = Callable[[str], None]
Options = Mapping[str, Mapping[str, Any]]


def fetch_in_parallel(
    instance: dg.DagsterInstance,
    store: Store,
    first: date,
    last: date,
    workers: int,
    say: Say = lambda _: None,
    *,
    options: Options | None = None,
) -> list[str]:
    """Fetch market_data for the days first to last with ``workers`` runs at once; see ``launch_parts``."""
    return launch_parts(instance, store, split_months(first, last, workers), CANDLES, say, options=options)


def compute_in_parallel(
    instance: dg.DagsterInstance,
    store: Store,
    state: DeclaredState,
    first: date,
    last: date,
    workers: int,
    tables: Sequence[str] = COMPUTED,
    say: Say = lambda _: None,
    *,
    options: Options | None = None,
    only: Collection[str] = (),
) -> list[str]:
    """Compute ``tables`` of COMPUTED for the days first to last with ``workers`` runs at once; see ``launch_parts``.

    Candles and the tables of the declared state must be stored. The checks of each run cover every market.
    ``only`` limits the markets.
    """
    parts = split_markets(state, first, last, workers, only)
    return launch_parts(instance, store, parts, tables, say, options=options) if parts else []


def launch_parts(
    instance: dg.DagsterInstance,
    store: Store,
    parts: Sequence[Part],
    tables: Sequence[str],
    say: Say = lambda _: None,
    *,
    options: Options | None = None,
) -> list[str]:
    """Launch one run of ``tables`` per part, all at once; return the ids of the successful runs.

    ``options`` is run configuration per table; a part's markets are added to it. A part whose run fails or whose
    process is gone is launched again. After the last attempt, and once the other parts have ended, AlgobotError is
    raised. ``say`` is called when a part starts and ends.
    """
    with _workspace(instance) as workspace:
        return list(_finished(instance, store, _Work(instance, workspace, tuple(tables), options or {}, say), parts))


@dataclass(frozen=True)
class _Work:
    """The settings that all parts share: the instance, the tables, the options."""

    instance: dg.DagsterInstance
    workspace: BaseWorkspaceRequestContext
    tables: tuple[str, ...]
    options: Options
    say: Say

    def launch(self, part: Part) -> str:
        """Launch a run of the part; return its id."""
        (entry,) = self.workspace.get_code_location_entries().values()
        if entry.code_location is None:
            raise AlgobotError(f"The definitions could not be loaded: {entry.load_error}")
        only = {"markets": list(part.markets)} if part.markets else {}
        options = {table: {**self.options.get(table, {}), **only} for table in self.tables}
        config = {**_CONFIG, "ops": {table: {"config": given} for table, given in options.items() if given}}
        run = _create(self.instance, entry.code_location, part, self.tables, config)
        self.instance.launch_run(run.run_id, self.workspace)
        self.say(f"{part}: run {run.run_id}")
        return run.run_id


@contextmanager
def _workspace(instance: dg.DagsterInstance) -> Iterator[BaseWorkspaceRequestContext]:
    """Load the project's definitions in a code server, which launchers require."""
    root = project_root()
    target = ModuleTarget("algobot_assets.definitions", None, str(root) if root else None, None)
    with WorkspaceProcessContext(instance, target, code_server_log_level="WARNING") as process:
        yield process.create_request_context()
        servers = process._grpc_server_registry
    servers.wait_for_processes()  # else it keeps polling its runs and its database for a few seconds


def _finished(instance: dg.DagsterInstance, store: Store, work: _Work, parts: Sequence[Part]) -> Iterator[str]:
    """Yield the ids of runs as they succeed; launch failed parts again."""
    with ThreadPoolExecutor(min(len(parts), _LAUNCHES)) as pool:  # a launcher takes seconds to start a process
        running = {run_id: (part, 1) for run_id, part in zip(pool.map(work.launch, parts), parts, strict=True)}
    missing: dict[str, str] = {}
    failed: list[str] = []
    while running:
        time.sleep(_POLL_SECONDS)
        lost, missing = find_abandoned(instance, store, missing, datetime.now(UTC))
        for dead in lost:
            if dead.run_id in running:
                instance.report_run_failed(dead, "The process of this run has died. What it wrote is complete.")
        for run_id, (part, attempt) in list(running.items()):
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                continue
            del running[run_id]
            if run is not None and run.is_success:
                work.say(f"{part}: done")
                yield run_id
            elif attempt < ATTEMPTS:
                running[work.launch(part)] = (part, attempt + 1)
            else:
                failed.append(f"{part} (run {run_id})")
    if failed:
        raise AlgobotError(
            f"{', '.join(failed)}: failed {ATTEMPTS} times. What was stored stays. See the runs in the UI, fix the "
            "cause, and run the same command again."
        )


def _create(
    instance: dg.DagsterInstance, location: CodeLocation, part: Part, tables: Sequence[str], config: dict[str, Any]
) -> dg.DagsterRun:
    """Create a run of the tables over these days, as the daemon does."""
    (repository,) = location.get_repositories().values()
    selected = frozenset(dg.AssetKey(table) for table in tables)
    job = location.get_job(
        JobSubsetSelector(
            location_name=location.name,
            repository_name=repository.name,
            job_name=_JOB,
            op_selection=None,
            asset_selection=selected,
            asset_check_selection=None,
        )
    )
    plan = location.get_execution_plan(job, config, step_keys_to_execute=None, known_state=None, instance=instance)
    return instance.create_run(
        job_name=_JOB,
        run_id=None,
        run_config=config,
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={RANGE_START: part.first.isoformat(), RANGE_END: part.last.isoformat(), **CHAIN},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=None,
        execution_plan_snapshot=plan.execution_plan_snapshot,
        job_snapshot=job.job_snapshot,
        parent_job_snapshot=job.parent_job_snapshot,
        asset_selection=selected,
        asset_check_selection=None,
        resolved_op_selection=job.resolved_op_selection,
        op_selection=None,
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
        asset_graph=repository.asset_graph,
    )
