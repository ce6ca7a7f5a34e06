"""A backfill by several runs at once: candles split at months, what follows from them by markets.

Runs are handed to whatever launcher the instance has: processes on this machine by default, Celery's workers or pods
where dagster.yaml says so. A month of candles follows from nothing that is stored, so months may come in any order, and
parts share none. What carries state goes through its days in order, each market's in one run; where two runs want to
write one month, the writers' lock lets them go one after the other, after which they are a month apart. How a run
fetches, computes and writes is the assets' affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from algobot_assets.declared.model import DeclaredState
from algobot_assets.defs.automation.abandoned import gone
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.errors import AlgobotError
from algobot_assets.schema.intervals import interval_ms, months_between, next_month
from algobot_assets.settings import project_root
from algobot_assets.store.connection import Store

#: Split at months.
CANDLES = ("market_data",)
#: Split by markets; they read the small tables of the declared state, which must be stored before.
COMPUTED = ("indicators", "signals", "trade_history", "performance_metrics", "backtest_results")
#: How often a part is begun: a worker may be killed, and what it wrote stays.
ATTEMPTS = 3
_LOOK = 1.0
#: Runs handed to the launcher at the same time.
_LAUNCHED = 8
_JOB = "__ASSET_JOB"
#: What a run says is in Dagster's log; the terminals of workers are nobody's.
_CONFIG = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
Say = Callable[[str], None]
Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """What one run is about: the days first to last (both included), and markets as "BTCUSDT 1m"; none means all."""

    first: date
    last: date
    markets: tuple[str, ...] = ()

    def __str__(self) -> str:
        days = f"{self.first} to {self.last}"
        return f"{days}, {', '.join(self.markets)}" if self.markets else days


def split(first: date, last: date, parts: int) -> list[Part]:
    """The days first to last (both included) in at most so many ranges of whole months, of equal length but one month.

    The days of a candle and of its database month differ for intervals above a day by at most the week in which a
    month ends; there the writers' locks keep two runs apart.
    """
    months = months_between(first, last + timedelta(days=1))
    parts = min(parts, len(months))
    ends = [len(months) * (number + 1) // parts for number in range(parts)]
    found, begin = [], 0
    for end in ends:
        until = next_month(months[end - 1]) - timedelta(days=1)
        found.append(Part(max(first, months[begin]), min(last, until)))
        begin = end
    return found


def split_markets(state: DeclaredState, first: date, last: date, parts: int, only: Collection[str] = ()) -> list[Part]:
    """The days first to last in at most so many parts with markets of their own, of about as many rows each.

    A market's rows are its candles, their indicators, and a signal of each of its strategies. ``only``: these markets.
    """
    rows = dict.fromkeys((market.name for market in state.markets), 2)
    for strategy in state.strategies:
        name = f"{strategy.symbol} {strategy.interval}"
        rows[name] = rows.get(name, 2) + 1
    rows = {name: number for name, number in rows.items() if not only or name in only}
    groups: list[tuple[float, list[str]]] = [(0.0, []) for _ in range(min(parts, len(rows)))]
    for name in sorted(rows, key=lambda name: (-_weight(name, rows[name]), name)):
        lightest = min(range(len(groups)), key=lambda number: groups[number][0])
        weight, names = groups[lightest]
        groups[lightest] = weight + _weight(name, rows[name]), [*names, name]
    return [Part(first, last, tuple(sorted(names))) for _, names in groups]


def _weight(market: str, rows: int) -> float:
    """Rows a day of a market that has so many per candle."""
    return rows * 86_400_000 / (interval_ms(market.rpartition(" ")[2]) or 30 * 86_400_000)


def fetch_side_by_side(
    instance: dg.DagsterInstance,
    store: Store,
    first: date,
    last: date,
    workers: int,
    say: Say = lambda _: None,
    *,
    options: Options | None = None,
) -> list[str]:
    """Materialise market_data for the days first to last by ``workers`` runs at once; see ``hand_over``."""
    return hand_over(instance, store, split(first, last, workers), CANDLES, say, options=options)


def compute_side_by_side(
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
    """Materialise ``tables`` of COMPUTED for the days first to last by ``workers`` runs at once; see ``hand_over``.

    Candles and the tables of the declared state must be stored. The checks of each run look at every market.
    ``only``: of these markets, where some are named.
    """
    parts = split_markets(state, first, last, workers, only)
    return hand_over(instance, store, parts, tables, say, options=options) if parts else []


def hand_over(
    instance: dg.DagsterInstance,
    store: Store,
    parts: Sequence[Part],
    tables: Sequence[str],
    say: Say = lambda _: None,
    *,
    options: Options | None = None,
) -> list[str]:
    """One run of ``tables`` per part, all at once, by the instance's launcher; the ids of those that succeeded.

    ``options`` is run configuration per table; a part's markets are added to it.

    A part whose run ends otherwise, or whose process is gone, is begun again; AlgobotError after the last attempt,
    once the other parts have ended. ``say`` hears of each part that begins and ends.
    """
    with _workspace(instance) as workspace:
        return list(_finished(instance, store, _Work(instance, workspace, tuple(tables), options or {}, say), parts))


@dataclass(frozen=True)
class _Work:
    """What every part is begun with."""

    instance: dg.DagsterInstance
    workspace: BaseWorkspaceRequestContext
    tables: tuple[str, ...]
    options: Options
    say: Say

    def begin(self, part: Part) -> str:
        """Hand a run over the part's days to the instance's launcher; its id."""
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
    """The project's definitions in a code server of their own, as launchers want them."""
    root = project_root()
    target = ModuleTarget("algobot_assets.definitions", None, str(root) if root else None, None)
    with WorkspaceProcessContext(instance, target, code_server_log_level="WARNING") as process:
        yield process.create_request_context()
        servers = process._grpc_server_registry
    servers.wait_for_processes()  # else it looks after its runs, and at its database, for some seconds more


def _finished(instance: dg.DagsterInstance, store: Store, work: _Work, parts: Sequence[Part]) -> Iterator[str]:
    with ThreadPoolExecutor(min(len(parts), _LAUNCHED)) as pool:  # a launcher takes seconds to start a process
        running = {run_id: (part, 1) for run_id, part in zip(pool.map(work.begin, parts), parts, strict=True)}
    missing: dict[str, str] = {}
    failed: list[str] = []
    while running:
        time.sleep(_LOOK)
        lost, missing = gone(instance, store, missing, datetime.now(UTC))
        for run in lost:
            if run.run_id in running:
                instance.report_run_failed(run, "The process of this run is gone; what it wrote is complete.")
        for run_id, (part, attempt) in list(running.items()):
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                continue
            del running[run_id]
            if run is not None and run.is_success:
                work.say(f"{part}: done")
                yield run_id
            elif attempt < ATTEMPTS:
                running[work.begin(part)] = (part, attempt + 1)
            else:
                failed.append(f"{part} (run {run_id})")
    if failed:
        raise AlgobotError(
            f"{', '.join(failed)} could not be materialised in {ATTEMPTS} attempts; see the runs in the UI. What "
            "was stored stays; run the same again."
        )


def _create(
    instance: dg.DagsterInstance, location: CodeLocation, part: Part, tables: Sequence[str], config: dict[str, Any]
) -> dg.DagsterRun:
    """A run of the tables over these days, as the daemon would make it."""
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
