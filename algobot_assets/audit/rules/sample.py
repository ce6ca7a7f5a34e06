"""Recompute a bounded sample of a run's window, and search it for look-ahead.

The sample is the newest consecutive days that were computed with the current code, the same parameters and the rows
stored now: at least three days and 200 rows if the run has them, at most 5,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from algobot_assets.audit.rules.check_run import DAY, CheckRun
from algobot_assets.audit.rules.look_ahead import Change, Compute, first_difference, look_ahead
from algobot_assets.audit.rules.messages import ahead, different, failed
from algobot_assets.compute.carry import Days
from algobot_assets.errors import AlgobotError
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import DAY_MS, LENGTH_MS, day_of
from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage.digests import state_digest
from algobot_assets.store.lineage.records import DayLineage
from algobot_assets.store.reader import read_window

#: The checks that use a sample.
AHEAD, AGAIN = "no_look_ahead", "computes_the_same_again"
LEAST_DAYS, LEAST_ROWS, MOST_ROWS = 3, 200, 5_000
#: Part of the descriptions of checks.
BOUND = (
    "Checks the newest of the run's days: three days or 200 candles, at most 5,000 candles, cut at 8 places; of "
    "at most four markets or strategies, others each day, and at least one of each strategy type."
)
#: Markets or strategies sampled in one run, if they are computed by fewer kinds of code.
MOST_SAMPLES = 4

Recorded = dict[date, DayLineage]


@dataclass(frozen=True)
class Sample:
    """Days of one market or strategy, and the state before them (None: no state)."""

    window: Window
    state: np.ndarray | None


def sampled(kinds: Mapping[Window, str], end: date) -> list[Window]:
    """Choose the windows to sample in a run that ends on ``end``; ``kinds`` names the code that computes each.

    Each kind gets at least one, and all together MOST_SAMPLES if there are so many. Each day it is the turn of others.
    """
    turns: dict[str, list[Window]] = {}
    for window, kind in kinds.items():
        turns.setdefault(kind, []).append(window)
    share = max(1, MOST_SAMPLES // max(1, len(turns)))
    chosen = []
    for windows in turns.values():
        number = min(share, len(windows))
        begin = end.toordinal() * number
        chosen += [windows[(begin + i) % len(windows)] for i in range(number)]
    return chosen


def choose(
    handle: Table, window: Window, upstream: Sequence[Window], code_version: str, recorded_rows: int
) -> Sample | None:
    """Choose the sample of ``window``; None if its newest days cannot be recomputed.

    ``upstream``: the windows from which it is computed. A day whose inputs have changed since is stale and not sampled;
    the view stale_partitions reports it.
    """
    if not recorded_rows:
        return None
    reach = max(LEAST_DAYS, -(-LEAST_ROWS * (LENGTH_MS[window.interval] or 31 * DAY_MS) // DAY_MS))
    first = max(window.first, window.end - timedelta(days=reach))
    own = handle.lineage(window.of(first - DAY, window.end))
    inputs = [handle.lineage(item.of(first, item.end)) for item in upstream]

    def fresh(day: date) -> bool:
        if any(day not in recorded or recorded[day].dirty for recorded in inputs):
            return False
        wanted = b"".join(recorded[day].output for recorded in inputs)
        return (own[day].inputs, own[day].code_version) == (wanted, code_version)

    days: list[date] = []
    start: date | None = None
    rows = 0
    for day in sorted((day for day in own if day >= first), reverse=True):
        follows = not days or (day + DAY == days[-1] and own[day].parameters == own[days[-1]].parameters)
        if not fresh(day) or not follows or (rows and rows + own[day].rows > MOST_ROWS):
            break
        days.append(day)
        rows += own[day].rows
        if own[day].state_in is None or (
            day - DAY in own and state_digest(own[day - DAY].state_out) == own[day].state_in
        ):
            start = day
        if len(days) >= LEAST_DAYS and rows >= LEAST_ROWS:
            break
    if start is None:
        return None
    state = None if own[start].state_in is None else own[start - DAY].state_out
    return Sample(window.of(start, days[0] + DAY), state)


def report(run: CheckRun, who: str, window: Window, result: SampleResult) -> None:
    """Add the result of a sample to the run's findings."""
    for name in (AHEAD, AGAIN):
        run.findings[name].seen += result.rows
    if result.error:
        run.findings[AGAIN].add(failed(who, window, result.error))
    if result.ahead:
        run.findings[AHEAD].add(ahead(who, result.ahead))
    if result.different:
        run.findings[AGAIN].add(different(who, result.different, run.table))


Again = Callable[[pl.DataFrame, Days], pl.DataFrame]


@dataclass(frozen=True)
class SampleResult:
    """The result of recomputing a sample. ``error``: why it failed."""

    rows: int
    ahead: Change | None = None
    different: Change | None = None
    error: str | None = None


def examine(
    handle: Table,
    sample: Sample,
    candles: Window,
    values: Window | None,
    indicators: Sequence[str],
    columns: Sequence[str],
    again: Again,
) -> SampleResult:
    """Recompute the sample unchanged, with its future cut off, and with its future poisoned.

    ``candles``, ``values``: windows of market_data and, if the computation reads them, indicators. ``columns``: the
    computed columns. ``again`` gets rows (timestamp, prices and volume, ``indicators``; Float64) with their days.
    """
    part = sample.window
    names = ("open", "high", "low", "close", "volume")
    rows = read_window(handle.store, candles.of(part.first, part.end), ["timestamp", *names])
    rows = rows.with_columns(pl.col(names).cast(pl.Float64))
    if values is not None and indicators:
        stored = read_window(handle.store, values.of(part.first, part.end), ["timestamp", *indicators])
        rows = rows.join(stored, on="timestamp", how="left", maintain_order="left")
    stored = read_window(handle.store, part, ["timestamp", *columns])
    if not rows["timestamp"].equals(stored["timestamp"]):
        return SampleResult(0)  # another check reports missing rows
    rows, stored = rows.head(MOST_ROWS), stored.head(MOST_ROWS)

    def compute(some: pl.DataFrame) -> pl.DataFrame:
        days = some.select(day_of(part.interval, part.phase).alias("day"))["day"]
        last = days[-1] if len(days) else part.first
        listed = [part.first + timedelta(days=i) for i in range((last - part.first).days + 1)]
        return again(some, Days(listed, days)).select(columns)

    return _examined(compute, rows, stored, columns, (*names[:4], *indicators))


def _examined(
    compute: Compute, rows: pl.DataFrame, stored: pl.DataFrame, columns: Sequence[str], poisonable: Sequence[str]
) -> SampleResult:
    try:
        whole = compute(rows)
        return SampleResult(
            rows.height,
            look_ahead(compute, rows, poisonable),
            first_difference(stored.select(columns), whole, rows["timestamp"]),
        )
    except AlgobotError as error:
        return SampleResult(rows.height, error=str(error))
    except Exception as error:  # a strategy is the user's code, so its exceptions are findings
        return SampleResult(rows.height, error=f"{type(error).__name__}: {error}")
