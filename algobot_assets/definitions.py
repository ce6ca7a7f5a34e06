"""The entry point for Dagster: every definition in the folder ``defs/``, with the resources they use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

import algobot_assets.defs
from algobot_assets.defs.resources import build_resources
from algobot_assets.settings import PROJECT


def build_defs(resource_overrides: Mapping[str, Any] | None = None, project: Path | None = None) -> dg.Definitions:
    """Build the definitions of all assets, checks, jobs, schedules and sensors in ``defs/``, discovered as `dg` does.

    ``resource_overrides`` replaces resources by name (database, feed, state, io_manager). ``project``: the package of
    a project made by `algobot init`; what its folder ``defs/`` defines is added, and its algobot.yaml, settings and
    strategies apply. Building opens no connection and reads no data.
    """
    if project is not None:
        os.environ.setdefault(PROJECT, str(project.resolve().parent))
    # found by module, because an installed wheel has no pyproject.toml
    tree = dg.ComponentTree(defs_module=algobot_assets.defs, project_root=Path(__file__).parents[1])
    shared = dg.Definitions(resources=build_resources(resource_overrides), executor=dg.in_process_executor)
    with warnings.catch_warnings():
        # Dagster's own load_from_defs_folder silences this warning as well
        warnings.simplefilter("ignore", dg.PreviewWarning)
        found = tree.build_defs()
    if project is None:
        return dg.Definitions.merge(found, shared)
    platform = dg.Definitions(  # without its tree: a location has one, which is the project's
        assets=found.assets,
        schedules=found.schedules,
        sensors=found.sensors,
        jobs=found.jobs,
        asset_checks=found.asset_checks,
        metadata=found.metadata,
    )
    return dg.Definitions.merge(platform, shared, dg.load_from_defs_folder(path_within_project=project))


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of this project; Dagster calls this when it loads the code location."""
    return build_defs()
