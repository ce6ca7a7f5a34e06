"""The legal order of days, and which of them need computing: one rule for every table with carried state.

A day may start empty if no earlier day of its market is recorded upstream, else it needs the complete state of
the day before. A day whose recorded inputs equal today's is fresh and is not computed again. Reading lineage and
computing rows happen elsewhere; here it is decided from lineage alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl

from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.schema.intervals import piece_end
from algobot_assets.schema.windows import Window
from algobot_assets.store.digests import state_digest
from algobot_assets.store.lineage import DayInputs, DayLineage

DAY = timedelta(days=1)
Recorded = Mapping[date, DayLineage]


@dataclass(frozen=True)
class Days:
    """The days of a run that may be computed, and why it ends or does not start.

    ``starts_empty``: the first day has no day before it upstream. ``refusal``: a sentence for people where the
    run's days could not all be taken; None where nothing is missing.
    """

    days: tuple[date, ...]
    starts_empty: bool
    refusal: str | None = None


def legal_days(
    window: Window,
    begin: date | None,
    upstream: Sequence[Recorded],
    own: Recorded,
    source: str,
    last_complete: Callable[[Window], date | None],
) -> Days:
    """The days of ``window`` that may be computed from ``upstream``, in order.

    ``begin``: the first day recorded upstream for this market or strategy, whatever the window. ``own``: recorded
    days of the window's table, from the day before the window on. ``source`` names the upstream in sentences;
    ``last_complete`` finds the window's last complete day before its first, for the sentence that says where to go on.
    """
    if begin is None:
        return Days((), True, f"{window} has nothing to start from: materialise {source} for these days first.")
    start = max(window.first, begin)
    if start >= window.end:
        return Days((), True)
    if start > begin:
        before = own.get(start - DAY)
        if before is None or before.damaged or not before.is_complete:
            kept = "was changed by hand" if before is not None and before.damaged else "is not complete yet"
            what = "is missing" if before is None else kept
            since = last_complete(window.of(begin, start))
            return Days(
                (),
                False,
                f"{window} cannot start on {start}: the state of {start - DAY} {what}. Materialise {window.table} "
                f"from {since + DAY if since else begin} on.",
            )
    days: list[date] = []
    day = start
    while day < window.end:
        if any(day not in recorded for recorded in upstream):
            later = any(d > day for recorded in upstream for d in recorded if d < window.end)
            why = (
                f"{window} stops before {day}: {source} is not materialised for that day."
                if later or not days
                else None
            )
            return Days(tuple(days), start == begin, why)
        days.append(day)
        if not all(recorded[day].is_complete for recorded in upstream):
            later = any(d > day for recorded in upstream for d in recorded if d < window.end)
            why = f"{window} stops after {day}: {source} of that day is not complete; refresh it." if later else None
            return Days(tuple(days), start == begin, why)
        day += DAY
    return Days(tuple(days), start == begin)


#: Rows of a run of days from the state before them: (days, state) -> (frame, states, one row per day).
Compute = Callable[[Sequence[date], np.ndarray | None], tuple[pl.DataFrame, np.ndarray | Sequence[np.ndarray] | None]]


@dataclass
class Tally:
    """How much of a chain was computed: days in all, days computed."""

    days: int = 0
    computed: int = 0


class Warm(Protocol):
    """How a day begins whose parameters differ from those of the day before: as if they had always held."""

    def basis(self, day: date) -> bytes:
        """Digest of all days before ``day``, from which the state is computed; cheap."""

    def state(self, day: date) -> np.ndarray | None:
        """The state at the start of ``day`` under its parameters, computed from the first day on."""


def run_chain(
    window: Window,
    legal: Days,
    own: Recorded,
    inputs: Callable[[date], tuple[bytes, datetime]],
    parameters: Callable[[date], bytes],
    code_version: str,
    compute: Compute,
    *,
    recompute: bool = False,
    warm: Warm | None = None,
    tally: Tally | None = None,
    interval: str = "",
) -> Iterator[WindowFrame]:
    """Compute what is not fresh, piece by piece, each from the state before it.

    ``inputs`` gives a day's input digest and how far it is complete. With ``warm`` a day whose parameters differ
    from those of the day before starts from the state that ``warm`` computes; without it the carried state goes on.
    ``interval``: that of the candles the rows are made from, where the window has none.
    """
    tally = tally if tally is not None else Tally()
    days = legal.days
    tally.days += len(days)
    if not days:
        return
    before = None if legal.starts_empty else own[days[0] - DAY]
    state = before.state_out if before else None
    previous = before.parameters if before else None
    position = 0
    while position < len(days):
        day = days[position]
        starts_warm = warm is not None and previous is not None and parameters(day) != previous
        basis = warm.basis(day) if starts_warm else b""
        wanted = _inputs(day, inputs, parameters, code_version, state_digest(state), basis)
        recorded = own.get(day)
        if recorded is not None and starts_warm:
            wanted = replace(wanted, state_in=recorded.state_in)  # it follows from the basis
        if recorded is not None and recorded.same_inputs(wanted) and not recompute:
            state, previous = recorded.state_out, recorded.parameters
            position += 1
            continue
        if starts_warm:
            state = warm.state(day)
        chunk, end = [day], piece_end(interval or window.interval, day)
        for later in days[position + 1 :]:
            if later >= end or (warm is not None and parameters(later) != parameters(day)):
                break
            chunk.append(later)
        frame, states = compute(chunk, state)
        records = []
        for index, item in enumerate(chunk):
            known = _inputs(item, inputs, parameters, code_version, state_digest(state), basis if index == 0 else b"")
            state = None if states is None else np.ascontiguousarray(states[index])
            records.append(replace(known, state_out=state))
        tally.computed += len(chunk)
        previous = records[-1].parameters
        yield WindowFrame(window.of(chunk[0], chunk[-1] + DAY), frame, records)
        position += len(chunk)


def _inputs(
    day: date,
    inputs: Callable[[date], tuple[bytes, datetime]],
    parameters: Callable[[date], bytes],
    code_version: str,
    state_in: bytes | None,
    basis: bytes,
) -> DayInputs:
    content, complete_through = inputs(day)
    return DayInputs(day, complete_through, content + basis, parameters(day), code_version, state_in)
