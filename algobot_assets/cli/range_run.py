"""One range run from the command line, with its progress and its outcome."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from algobot_assets.cli.console import progress
from algobot_assets.cli.output import say
from algobot_assets.errors import AlgobotError
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.cli.runs import RunResult

#: Tables of the declared state; the others go market by market.
DECLARED = ("configurations", "strategies", "risk_parameters")
#: A run as scripts are told of it: run_id, first, last, tables, left_out.
Ran = dict[str, Any]


def run_range(settings: Settings, first: date, last: date, tables: tuple[str, ...] = (), **options: Any) -> Ran:
    """One Dagster range run with progress on the terminal; AlgobotError where it fails."""
    from algobot_assets.cli import runs
    from algobot_assets.schema.tables import NINE

    with progress(f"{first} to {last}"), runs.instance(settings) as instance:
        result = runs.materialise(instance, first, last, tables or None, options=options)
    for sentence in result.left_out:
        say(f"Left out: {sentence}")
    if not result.success:
        raise AlgobotError(result.error or f"Run {result.run_id} failed; see it in the UI.")
    return _document(result, first, last, tables or NINE)


def _document(result: RunResult, first: date, last: date, tables: tuple[str, ...]) -> Ran:
    """A run that has succeeded, as scripts are told of it."""
    days = {"first": first, "last": last}
    return {"run_id": result.run_id, **days, "tables": list(tables), "left_out": list(result.left_out)}
