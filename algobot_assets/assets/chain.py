"""The legal order of days, and which of them need computing: one rule for every table with carried state.

A day may start empty if no earlier day of its market is recorded upstream, else it needs the complete state of
the day before. A day whose recorded inputs equal today's is fresh and is not computed again. Reading lineage and
computing rows happen elsewhere; here it is decided from lineage alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from algobot_assets.schema.intervals import next_month
from algobot_assets.schema.windows import Window
from algobot_assets.store.digests import state_digest
from algobot_assets.store.lineage import DayInputs, DayLineage
from algobot_assets.windows import WindowFrame

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
        if before is None or not before.is_complete:
            what = "is missing" if before is None else "is not complete yet"
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
    first_state: Callable[[date], tuple[np.ndarray | None, bytes]] | None = None,
    tally: Tally | None = None,
) -> Iterator[WindowFrame]:
    """Compute what is not fresh, month by month, each from the state before it.

    ``inputs`` gives a day's input digest and how far it is complete. ``first_state`` gives the state with which a
    day starts whose parameters differ from those of the day before, and the digest of what that state was
    computed from; without it the carried state goes on.
    """
    tally = tally if tally is not None else Tally()
    days = legal.days
    tally.days += len(days)
    if not days:
        return
    state = None if legal.starts_empty else own[days[0] - DAY].state_out
    previous = None if legal.starts_empty else own[days[0] - DAY].parameters
    position = 0
    while position < len(days):
        day = days[position]
        if first_state is not None and previous is not None and parameters(day) != previous:
            state, basis = first_state(day)
        else:
            basis = b""
        wanted = _inputs(day, inputs, parameters, code_version, state, basis)
        recorded = own.get(day)
        if recorded is not None and recorded.same_inputs(wanted) and not recompute:
            state, previous = recorded.state_out, recorded.parameters
            position += 1
            continue
        month_end = next_month(day)
        chunk = [day]
        for later in days[position + 1 :]:
            if later >= month_end or (first_state is not None and parameters(later) != parameters(day)):
                break
            chunk.append(later)
        frame, states = compute(chunk, state)
        records = []
        for index, item in enumerate(chunk):
            out = None if states is None else np.ascontiguousarray(states[index])
            known = _inputs(item, inputs, parameters, code_version, state, basis if index == 0 else b"")
            records.append(
                DayInputs(
                    item, known.complete_through, known.inputs, known.parameters, code_version, known.state_in, out
                )
            )
            state = out
        tally.computed += len(chunk)
        previous = records[-1].parameters
        yield WindowFrame(window.of(chunk[0], chunk[-1] + DAY), frame, records)
        position += len(chunk)


def _inputs(
    day: date,
    inputs: Callable[[date], tuple[bytes, datetime]],
    parameters: Callable[[date], bytes],
    code_version: str,
    state: np.ndarray | None,
    basis: bytes,
) -> DayInputs:
    content, complete_through = inputs(day)
    return DayInputs(day, complete_through, content + basis, parameters(day), code_version, state_digest(state))
