"""Sensors: what the state of the tables and of the declared file calls for, as range runs by tag.

A sensor asks the database, proposes one run, oldest days first, and says in its skip reason what it saw. That it never
asks twice for the same thing is the affair of `proposals`. Alerts have a module of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from algobot_assets.audit.gaps import holes, stretch
from algobot_assets.audit.staleness import RangeRun, due, recorded_days, stale
from algobot_assets.declared.differences import Difference, Kind, differences
from algobot_assets.declared.model import DeclaredState
from algobot_assets.defs.automation.proposals import key_of, propose, unfinished
from algobot_assets.defs.resources import DatabaseResource, StateResource
from algobot_assets.errors import SettingsError
from algobot_assets.pipeline.reference import stored_state
from algobot_assets.schema.intervals import FIRST_DAY
from algobot_assets.schema.tables import NINE

#: What waits for a person: it changes or removes what is stored.
_WAITS = (Kind.CORRECTION, Kind.DISAPPEARED)
#: Sentences shown in a skip reason.
_SHOWN = 3


@dg.sensor(
    name="staleness",
    target=dg.AssetSelection.groups("market", "trading"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Computes again what no longer matches what it was computed from: changed data, parameters, code or "
    "carried state, rows changed by hand, and what is missing.",
)
def staleness(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    """One run from the first stale day on, or the reason why none is due."""
    waiting = unfinished(context.instance, "what is stale after it is asked for then")
    if waiting is not None:
        return waiting
    run = due(database.store)
    if run is None:
        return dg.SkipReason("Nothing is stale.")
    return propose(context.instance, run, key_of("staleness", stale(database.store).iter_rows()))


@dg.sensor(
    name="gaps",
    target=dg.AssetSelection.assets("market_data"),
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks the source again for days that are missing or unfinished between others, and for days that lack "
    "candles nobody has confirmed to be absent. A confirmed gap is not asked for again.",
)
def gaps(
    context: dg.SensorEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """One run over the oldest stretch of such days; what follows from them is the affair of `staleness`."""
    waiting = unfinished(context.instance, "what is missing after it is asked for then")
    if waiting is not None:
        return waiting
    try:
        markets = {(market.symbol, market.interval) for market in state.load().markets}
    except SettingsError as error:
        return dg.SkipReason(f"The declared state cannot be read: {error}")
    found = holes(database.store, markets)
    if not found:
        return dg.SkipReason(f"No day of {len(markets)} markets lacks a candle that is not confirmed absent.")
    first, last = stretch(found)
    inside = [hole for hole in found if first <= hole.day <= last]
    run = RangeRun(("market_data",), first, last, _listed(inside))
    return propose(context.instance, run, key_of("gaps", inside), {"market_data": {"from_source": True}})


@dg.sensor(
    name="declared_state",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Stores new versions, strategies and markets of the declared state and computes what follows. What "
    "would change stored versions waits for `algobot apply --rewrite`.",
)
def declared_state(
    context: dg.SensorEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """One run from the first day that a new declaration concerns, or what waits for a person."""
    waiting = unfinished(context.instance, "the declared state is looked at after it")
    if waiting is not None:
        return waiting
    try:
        declared = state.load()
    except SettingsError as error:
        return dg.SkipReason(f"The declared state cannot be read: {error}")
    days = recorded_days(database.store)
    if not days:
        return dg.SkipReason("No candles are stored yet; the refresh begins with the declared markets.")
    last = max(end for _, end in days.values())
    found = differences(declared, stored_state(database.store))
    blocked = [item for item in found if item.kind in _WAITS]
    wanted = [item for item in found if item.kind not in _WAITS and item.day <= last]
    later = [item for item in found if item.kind not in _WAITS and item.day > last]
    lacking = _lacking(declared, days, last)
    first = min([item.day for item in wanted] + [day for _, day in lacking], default=None)
    in_the_way = first is not None and any(first <= item.day <= last for item in blocked)
    said = _said(blocked, later, in_the_way)
    if first is None or in_the_way:
        return dg.SkipReason(said or "What is declared is stored.")
    reasons = [*map(str, wanted), *(f"market {name} from {day}" for name, day in lacking)]
    answer = propose(context.instance, RangeRun(NINE, first, last, _listed(reasons)), key_of("declared_state", reasons))
    return dg.SkipReason(f"{answer.skip_message} {said}".strip()) if isinstance(answer, dg.SkipReason) else answer


def _lacking(
    declared: DeclaredState, days: Mapping[tuple[str, str], tuple[date, date]], last: date
) -> list[tuple[str, date]]:
    """Declared markets of which days from their start on are not recorded, with that start."""
    found = []
    for market in declared.markets:
        start = max(market.start, FIRST_DAY)
        recorded = days.get((market.symbol, market.interval))
        if start <= last and (recorded is None or start < recorded[0]):
            found.append((market.name, start))
    return found


def _said(blocked: Sequence[Difference], later: Sequence[Difference], in_the_way: bool) -> str:
    """What is not asked for, and why."""
    sentences = []
    if blocked:
        rest = "; new versions of these days wait with it" if in_the_way else ""
        sentences.append(f"Waits for a person (`algobot apply` says what to do){rest}: {_listed(blocked)}.")
    if later:
        sentences.append(f"Stored on the day it becomes effective: {_listed(later)}.")
    return " ".join(sentences)


def _listed(items: Sequence[object]) -> str:
    shown = "; ".join(str(item) for item in items[:_SHOWN])
    return shown + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


SENSORS = (staleness, gaps, declared_state)
