"""Store the declared state in configurations, strategies and risk_parameters, on the day each version takes effect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from algobot_assets.declared.differences import Stored, rows_to_hold
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import days_between, midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.reader import read_table

CODE_VERSION = "1"


def stored_state(store: Store) -> Stored:
    """Return the rows of the three reference tables, with ids."""
    frames = {table: read_table(store, table, "id") for table in ("configurations", "strategies", "risk_parameters")}
    return Stored(**frames)


def _declared_days(run: TableRun) -> Iterator[WindowFrame]:
    state = run.state.load()
    rows = rows_to_hold(run.table, state, stored_state(run.store), run.first, run.end, run.options.rewrite)
    days = [
        DayInputs(day, midnight(day + timedelta(days=1)), code_version=CODE_VERSION)
        for day in days_between(run.first, run.end)
    ]
    run.succeeded += 1
    run.day_counts.days += len(days)
    yield WindowFrame(Window(run.table, run.first, run.end), rows, days)


def configurations(run: TableRun) -> Iterator[WindowFrame]:
    """Yield the configurations that become effective in the run's days."""
    yield from _declared_days(run)


def strategies(run: TableRun) -> Iterator[WindowFrame]:
    """Yield the strategy versions that become effective in the run's days."""
    yield from _declared_days(run)


def risk_parameters(run: TableRun, strategies: Table) -> Iterator[WindowFrame]:
    """Yield the risk parameters that become effective in the run's days."""
    yield from _declared_days(run)
