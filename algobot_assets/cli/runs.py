"""Range runs outside of the daemon: one Dagster run over a range of days, in this process.

The command line starts runs here. They are recorded in Dagster's storage like any other and seen in the UI.
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
from dagster._core.instance.ref import InstanceRef  # the one way to keep artefacts away from dagster.yaml

from algobot_assets.defs.assets import TABLES
from algobot_assets.defs.checks import CHECKS
from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.defs.resources import build_resources
from algobot_assets.defs.table_asset import failed_checks
from algobot_assets.errors import AlgobotError, SettingsError
from algobot_assets.settings import Settings, project_root


@dataclass(frozen=True)
class RunResult:
    """How a range run ended: its id, whether it succeeded, and the sentences of checks that did not pass."""

    run_id: str
    success: bool
    left_out: tuple[str, ...]
    error: str | None


@contextmanager
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The project's Dagster instance: dagster.yaml of the checkout, artefacts in the settings' home.

    Where DAGSTER_HOME names a folder with a dagster.yaml, as on a cluster, that one counts.
    """
    given = os.environ.get("DAGSTER_HOME")
    root = Path(given) if given and Path(given, "dagster.yaml").is_file() else project_root()
    if root is None or not (root / "dagster.yaml").is_file():
        raise SettingsError("dagster.yaml is not where it should be: run from a checkout of the project.")
    artefacts = settings.home / "dagster"
    artefacts.mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(artefacts), config_dir=str(root))) as opened:
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
    """One run over the days first to last (both included) of ``tables``, default all nine.

    ``options``: run configuration per table. The result holds what went wrong as sentences; programming errors
    are raised.
    """
    chosen = [a for a in TABLES if tables is None or a.key.path[-1] in tables]
    result = dg.materialize(
        [*TABLES, *CHECKS],  # selecting a table selects its checks
        selection=[a.key for a in chosen],
        instance=on,
        resources=build_resources(resources),
        tags={RANGE_START: first.isoformat(), RANGE_END: last.isoformat(), **CHAIN, **(tags or {})},
        run_config={
            "ops": {table: {"config": dict(config)} for table, config in (options or {}).items()},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},  # callers show what they want to show
        },
        raise_on_error=False,
    )
    left_out = failed_checks(result.get_asset_check_evaluations())
    failures = [e.step_failure_data.error for e in result.filter_events(lambda event: event.is_step_failure)]
    failures += [e.job_failure_data.error for e in result.filter_events(lambda event: event.is_job_failure)]
    error = next((_sentence(info) for info in failures if info is not None), None)
    return RunResult(result.run_id, result.success, tuple(left_out), error)


def _sentence(info: Any) -> str:
    """The text of an error meant for people, else the whole error."""
    causes = [info]
    while causes[-1].cause is not None:
        causes.append(causes[-1].cause)
    for item in causes:
        # a failed blocking check names itself; its sentences are among those of the checks
        if item.cls_name in {"DagsterAssetCheckFailedError", *_names(AlgobotError)}:
            return item.message.split(": ", 1)[-1].strip()
    return info.to_string()


def _names(kind: type) -> set[str]:
    return {kind.__name__}.union(*(_names(sub) for sub in kind.__subclasses__()))
