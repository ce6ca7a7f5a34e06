"""Decide which days of a table with carried state may be computed, and compute those that are stale.

A day may start empty if no earlier day of its market is recorded upstream; otherwise it needs the complete state of
the day before. A day whose recorded inputs equal today's is fresh and is not recomputed. All decisions rest on
lineage alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl

from algobot_assets.pipeline.skipped import NO_CANDLES, Skipped
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.schema.intervals import consecutive, piece_end
from algobot_assets.schema.windows import Window
from algobot_assets.store.lineage.digests import NOTHING, state_digest
from algobot_assets.store.lineage.records import DayInputs, DayLineage

DAY = timedelta(days=1)
Recorded = Mapping[date, DayLineage]
_REFRESH = "Run `algobot refresh`; if the source has no such candles, provide the files or run `algobot gaps accept`."


@dataclass(frozen=True)
class ComputableDays:
    """The days of a run that may be computed, in order.

    ``starts_empty``: no day before the first is recorded upstream. ``skipped``: the reason why some of the
    run's days cannot be computed; None if all can.
    """

    days: tuple[date, ...]
    starts_empty: bool
    skipped: Skipped | None = None


def computable_days(
    window: Window,
    market: str,
    begin: date | None,
    upstream: Sequence[Recorded],
    own: Recorded,
    sources: Sequence[str],
    last_complete: Callable[[Window], date | None],
) -> ComputableDays:
    """Return the days of ``window`` that may be computed from ``upstream``.

    ``market``: its name, for messages. ``begin``: the first day recorded upstream for it, whatever the window.
    ``own``: recorded days of the window's table, from the day before the window on. ``sources``: the names of
    the upstream tables, candles first. ``last_complete`` finds the window's last complete day before its first, to
    tell where to resume.
    """
    last = window.end - DAY
    if begin is None:
        reason = f"no {sources[0]} stored"
        return ComputableDays(
            (), True, Skipped(window.table, reason, "", market, "", window.first, last, None, window.first)
        )
    start = max(window.first, begin)
    if start >= window.end:
        return ComputableDays((), True)
    if start > begin:
        before = own.get(start - DAY)
        if before is None or before.damaged or not before.is_complete:
            kept = "was changed by hand" if before is not None and before.damaged else "is not complete yet"
            reason = f"cannot start on {start}: the state of {start - DAY} {'is missing' if before is None else kept}"
            since = last_complete(window.of(begin, start))
            resume = since + DAY if since else begin
            return ComputableDays(
                (), False, Skipped(window.table, reason, market=market, backfill_from=resume, last=last)
            )
    days: list[date] = []
    day = start
    while day < window.end:
        missing = [name for name, recorded in zip(sources, upstream, strict=True) if day not in recorded]
        if not missing:
            days.append(day)
        if missing or not all(recorded[day].is_complete for recorded in upstream):
            later = [d for recorded in upstream for d in recorded if day < d < window.end]
            if not later and days:
                return ComputableDays(tuple(days), start == begin)
            stops_at = day - DAY if days else None
            if missing:
                end = min((d for d in upstream[sources.index(missing[0])] if d > day), default=window.end)
                reason, remedy = f"no {missing[0]} stored", ""
            else:
                end, reason, remedy = _next_complete(upstream, day, window.end), NO_CANDLES, _REFRESH
            backfill_from = day if missing else None
            why = Skipped(window.table, reason, remedy, market, "", day, end - DAY, stops_at, backfill_from)
            return ComputableDays(tuple(days), start == begin, why)
        day += DAY
    return ComputableDays(tuple(days), start == begin)


def _next_complete(upstream: Sequence[Recorded], day: date, end: date) -> date:
    """Return the first day after ``day`` that is complete in the first of ``upstream``, at most ``end``."""
    day += DAY
    while day < end and not all(day in recorded and recorded[day].is_complete for recorded in upstream[:1]):
        day += DAY
    return day


def unknown_stretches(complete: Mapping[date, bool]) -> list[tuple[date, date]]:
    """Return the first and last day of each run of incomplete days that a complete day follows."""
    last = max((day for day, known in complete.items() if known), default=date.min)
    unknown = [day for day, known in complete.items() if not known and day < last]
    return [(run[0], run[-1]) for run in consecutive(unknown)]


#: Computes a run of days from the state before it: (days, state) -> (frame, states with one row per day).
Compute = Callable[[Sequence[date], np.ndarray | None], tuple[pl.DataFrame, np.ndarray | Sequence[np.ndarray] | None]]


@dataclass(frozen=True)
class Rows:
    """Rows that a computation reads: the window of a table, and its columns."""

    window: Window
    columns: tuple[str, ...]


class WarmStart(Protocol):
    """The state for a day whose parameters differ from those of the day before, as if they had always been in force."""

    def basis(self, day: date) -> bytes:
        """Return a digest of all days before ``day``, from which the state is computed; cheap."""

    def state(self, day: date) -> np.ndarray | None:
        """Compute the state at the start of ``day`` under its parameters, from the first day on."""


@dataclass(frozen=True)
class Chain:
    """The days of one market or strategy in a table, each computed from the state of the day before.

    ``recorded``: the window's recorded days and the one before. ``inputs`` returns a day's input digest and the time up
    to which it is complete. A day whose parameters differ from those of the day before starts from the state that
    ``warm_start`` computes; without one, from the carried state. ``interval``: the interval of the candles behind the
    rows, if the window has none. ``strategy``: its name, for messages. ``reads``: the stored rows that ``compute``
    needs for a piece of days.
    """

    window: Window
    computable: ComputableDays
    recorded: Recorded
    inputs: Callable[[date], tuple[bytes, datetime]]
    parameters: Callable[[date], bytes]
    code_version: str
    compute: Compute
    warm_start: WarmStart | None = None
    interval: str = ""
    strategy: str = ""
    reads: Callable[[Sequence[date]], Sequence[Rows]] = lambda days: ()

    def inputs_of(self, day: date, state_in: bytes | None, basis: bytes) -> DayInputs:
        """Return the current inputs of ``day``."""
        content, complete_through = self.inputs(day)
        return DayInputs(day, complete_through, content + basis, self.parameters(day), self.code_version, state_in)

    def piece(self, position: int) -> list[date]:
        """Return the days from ``position`` on to compute at once: one calendar piece under the same parameters."""
        days = self.computable.days
        first = days[position]
        end = piece_end(self.interval or self.window.interval, first)
        found = [first]
        for day in days[position + 1 :]:
            if day >= end or (self.warm_start is not None and self.parameters(day) != self.parameters(first)):
                break
            found.append(day)
        return found


class StaleDays:
    """The days of a chain that are not fresh, computed piece by piece, each from the state before it."""

    def __init__(self, chain: Chain, *, recompute: bool = False) -> None:
        self.chain = chain
        self._recompute = recompute
        self._position = 0
        days = chain.computable.days
        before = chain.recorded[days[0] - DAY] if days and not chain.computable.starts_empty else None
        self._state = before.state_out if before else None
        self._previous = before.parameters if before else None
        self._warm: WarmStart | None = None
        self._basis = NOTHING

    def next_piece(self) -> list[date]:
        """Pass over the fresh days, and return the days to compute next; none if the rest is fresh."""
        chain, days = self.chain, self.chain.computable.days
        while self._position < len(days):
            day = days[self._position]
            changed = self._previous is not None and chain.parameters(day) != self._previous
            self._warm = chain.warm_start if changed else None
            self._basis = self._warm.basis(day) if self._warm is not None else NOTHING
            wanted = chain.inputs_of(day, state_digest(self._state), self._basis)
            recorded = chain.recorded.get(day)
            if recorded is not None and self._warm is not None:
                wanted = replace(wanted, state_in=recorded.state_in)  # the basis determines it
            if recorded is None or self._recompute or not recorded.same_inputs(wanted):
                return chain.piece(self._position)
            self._state, self._previous = recorded.state_out, recorded.parameters
            self._position += 1
        return []

    def compute(self, piece: list[date]) -> WindowFrame:
        """Compute the days that ``next_piece`` returned."""
        chain = self.chain
        state = self._state if self._warm is None else self._warm.state(piece[0])
        frame, states = chain.compute(piece, state)
        records = []
        for index, day in enumerate(piece):
            known = chain.inputs_of(day, state_digest(state), self._basis if index == 0 else NOTHING)
            state = None if states is None else np.ascontiguousarray(states[index])
            records.append(replace(known, state_out=state))
        self._state, self._previous = state, records[-1].parameters
        self._position += len(piece)
        return WindowFrame(chain.window.of(piece[0], piece[-1] + DAY), frame, records)
