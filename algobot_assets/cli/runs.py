"""Run a range of days in this process, without the daemon.

The runs are recorded in Dagster's storage like any other, so the UI shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef  # the only way to keep artefacts outside the folder of dagster.yaml
from dagster_shared.error import SerializableErrorInfo

from algobot_assets.defs.assets import TABLES
from algobot_assets.defs.checks import CHECKS
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.defs.resources import build_resources
from algobot_assets.defs.table_asset import failed_checks
from algobot_assets.errors import AlgobotError
from algobot_assets.pipeline.days import require_days
from algobot_assets.settings import Settings, require_project


@dataclass(frozen=True)
class RunResult:
    """Outcome of a range run: its id, whether it succeeded, and the messages of failed checks.

    ``skipped`` holds those messages: mostly markets that could not be computed, and why.
    """

    run_id: str
    success: bool
    skipped: tuple[str, ...]
    error: str | None


@contextmanager
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the project's Dagster instance: dagster.yaml of the project, artefacts in the settings' home.

    If DAGSTER_HOME names a folder with a dagster.yaml, as on a cluster, that file is used instead.
    """
    given = os.environ.get("DAGSTER_HOME")
    root = Path(given) if given and Path(given, "dagster.yaml").is_file() else require_project()
    artefacts = settings.home / "dagster"
    artefacts.mkdir(parents=True, exist_ok=True)
    logs: dict[str, Any] = {
        "compute_logs": {
            "module": "algobot_assets.defs.instance.step_logs",
            "class": "StepLogs",
            "config": {"base_dir": str(artefacts / "storage")},
        }
    }
    reference = InstanceRef.from_dir(str(artefacts), config_dir=str(root), overrides=logs)
    with dg.DagsterInstance.from_ref(reference) as opened:
        yield opened


def materialise(
    on: dg.DagsterInstance,
    first: date,
    last: date,
    tables: Sequence[str] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    resources: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> RunResult:
    """Materialise the days first to last (both included) of ``tables``, by default all nine, in one run.

    ``options``: run configuration per table. The result has a message for each failure.
    """
    require_days(first, last)
    chosen = [a for a in TABLES if tables is None or a.key.path[-1] in tables]
    result = dg.materialize(
        [*TABLES, *CHECKS],  # selecting a table selects its checks
        selection=[a.key for a in chosen],
        instance=on,
        resources=build_resources(resources),
        tags={RANGE_START: first.isoformat(), RANGE_END: last.isoformat(), **CHAIN, **(tags or {})},
        run_config={
            "ops": {table: {"config": dict(config)} for table, config in (options or {}).items()},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},  # callers print their own messages
        },
        raise_on_error=False,
    )
    skipped = failed_checks(result.get_asset_check_evaluations())
    failures = [e.step_failure_data.error for e in result.filter_events(lambda event: event.is_step_failure)]
    failures += [e.job_failure_data.error for e in result.filter_events(lambda event: event.is_job_failure)]
    if any(_is_interrupt(info) for info in failures if info is not None):
        raise KeyboardInterrupt
    error = next((_sentence(info) for info in failures if info is not None), None)
    return RunResult(result.run_id, result.success, tuple(skipped), error)


def _sentence(info: SerializableErrorInfo) -> str:
    """Return the message of an AlgobotError, or the whole error otherwise."""
    causes = [info]
    while (cause := causes[-1].cause) is not None:
        causes.append(cause)
    for item in causes:
        # for a failed blocking check this is its name; its messages are among those of the checks
        if item.cls_name in {"DagsterAssetCheckFailedError", *_names(AlgobotError)}:
            return item.message.split(": ", 1)[-1].strip()
    return info.to_string()


def _is_interrupt(info: SerializableErrorInfo) -> bool:
    """Return whether Ctrl-C ended the run; Dagster turns it into an error of its own."""
    if info.cls_name in ("KeyboardInterrupt", "DagsterExecutionInterruptedError"):
        return True
    return any(_is_interrupt(inner) for inner in (info.cause, info.context) if inner is not None)


def _names(kind: type[Exception]) -> set[str]:
    return {kind.__name__}.union(*(_names(sub) for sub in kind.__subclasses__()))
