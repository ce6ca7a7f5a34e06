"""Run a range of days from the command line: show progress, report skipped markets."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from algobot_assets.cli import interrupts
from algobot_assets.cli.console import progress
from algobot_assets.cli.output import say
from algobot_assets.errors import AlgobotError
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.cli.runs import RunResult

#: A run in JSON documents: run_id, first, last, tables, skipped. `left_out` is the old name of `skipped`.
Ran = dict[str, Any]


def run_range(settings: Settings, first: date, last: date, tables: tuple[str, ...] = (), **options: Any) -> Ran:
    """Materialise a range of days in one Dagster run, with progress on the terminal. AlgobotError if it fails."""
    from algobot_assets.cli import runs
    from algobot_assets.schema.tables import NINE

    with interrupts.unwinding(), progress(f"{first} to {last}"), runs.instance(settings) as instance:
        result = runs.materialise(instance, first, last, tables or None, options=options)
    for sentence in result.skipped:
        say(f"Skipped: {sentence}")
    if not result.success:
        raise AlgobotError(result.error or f"Run {result.run_id} failed. See its log in the UI (`algobot up`).")
    return _document(result, first, last, tables or NINE)


def _document(result: RunResult, first: date, last: date, tables: tuple[str, ...]) -> Ran:
    """Describe a successful run for JSON."""
    days = {"first": first, "last": last}
    skipped = list(result.skipped)
    return {"run_id": result.run_id, **days, "tables": list(tables), "skipped": skipped, "left_out": skipped}
