"""What Dagster loads: every definition in the folder ``defs/``, with the resources they use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

import algobot_assets.defs
from algobot_assets.defs.resources import build_resources


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors of ``defs/``, found as `dg` finds them.

    ``resource_overrides`` replaces resources by name (database, feed, state, io_manager). Nothing is opened or read.
    """
    # by module and not by pyproject.toml, which an installed wheel does not have
    tree = dg.ComponentTree(defs_module=algobot_assets.defs, project_root=Path(__file__).parents[1])
    shared = dg.Definitions(resources=build_resources(resource_overrides), executor=dg.in_process_executor)
    with warnings.catch_warnings():
        # what Dagster's own load_from_defs_folder keeps quiet about too
        warnings.simplefilter("ignore", dg.PreviewWarning)
        found = tree.build_defs()
    return dg.Definitions.merge(found, shared)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of this project, built when Dagster asks for them."""
    return build_defs()
