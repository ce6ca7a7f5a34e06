"""Sensors that request runs for stale days, missing candles and changes of the declared state.

Each queries the database and requests one range run, oldest days first, or explains in its skip reason why not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from algobot_assets.audit.gaps import missing_days, stretch
from algobot_assets.audit.staleness import RangeRun, due, recorded_days, stale
from algobot_assets.declared.differences import Difference, Kind, differences
from algobot_assets.declared.model import DeclaredState
from algobot_assets.defs.automation.proposals import key_of, propose, unfinished
from algobot_assets.defs.resources import DatabaseResource, StateResource
from algobot_assets.errors import SettingsError
from algobot_assets.pipeline.reference import stored_state
from algobot_assets.schema.intervals import FIRST_DAY
from algobot_assets.schema.tables import NINE

#: Differences that change or remove stored versions, so they wait for a person.
_WAITS = (Kind.CORRECTION, Kind.DISAPPEARED)
#: Items shown in a skip reason.
_SHOWN = 3


@dg.sensor(
    name="staleness",
    target=dg.AssetSelection.groups("market", "trading"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Recomputes stale partitions: changed data, parameters, code or carried state, rows edited by hand, "
    "and missing partitions.",
)
def staleness(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    """Request one run from the first stale day on, or say why none is due."""
    waiting = unfinished(context.instance, "the next tick checks what is stale")
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
    description="Fetches days again that are missing or unfinished between others, or that lack candles without a "
    "confirmed gap.",
)
def gaps(
    context: dg.SensorEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """Request one run over the oldest stretch of such days. The sensor `staleness` recomputes the other tables."""
    waiting = unfinished(context.instance, "the next tick checks what is missing")
    if waiting is not None:
        return waiting
    try:
        markets = {(market.symbol, market.interval) for market in state.load().markets}
    except SettingsError as error:
        return dg.SkipReason(f"The declared state cannot be read. {error}")
    found = missing_days(database.store, markets)
    if not found:
        return dg.SkipReason(f"No day of {len(markets)} markets lacks candles, except confirmed gaps.")
    first, last = stretch(found)
    inside = [missing for missing in found if first <= missing.day <= last]
    run = RangeRun(("market_data",), first, last, _listed(inside))
    return propose(context.instance, run, key_of("gaps", inside), {"market_data": {"from_source": True}})


@dg.sensor(
    name="declared_state",
    target=dg.AssetSelection.groups("reference", "market", "trading"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Stores new versions, strategies and markets of the declared state and computes their tables. Changes "
    "of stored versions wait for `algobot apply --rewrite`.",
)
def declared_state(
    context: dg.SensorEvaluationContext, database: DatabaseResource, state: StateResource
) -> dg.RunRequest | dg.SkipReason:
    """Request one run from the first day affected by a new declaration, or explain which changes wait for a person."""
    waiting = unfinished(context.instance, "the next tick checks the declared state")
    if waiting is not None:
        return waiting
    try:
        declared = state.load()
    except SettingsError as error:
        return dg.SkipReason(f"The declared state cannot be read. {error}")
    days = recorded_days(database.store)
    if not days:
        return dg.SkipReason("No candles are stored yet; the schedule `refresh` fetches the declared markets.")
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
        return dg.SkipReason(said or "Everything declared is stored.")
    reasons = [*map(str, wanted), *(f"market {name} from {day}" for name, day in lacking)]
    answer = propose(context.instance, RangeRun(NINE, first, last, _listed(reasons)), key_of("declared_state", reasons))
    return dg.SkipReason(f"{answer.skip_message} {said}".strip()) if isinstance(answer, dg.SkipReason) else answer


def _lacking(
    declared: DeclaredState, days: Mapping[tuple[str, str], tuple[date, date]], last: date
) -> list[tuple[str, date]]:
    """Return declared markets without recorded days at their start, with that start."""
    found = []
    for market in declared.markets:
        start = max(market.start, FIRST_DAY)
        recorded = days.get((market.symbol, market.interval))
        if start <= last and (recorded is None or start < recorded[0]):
            found.append((market.name, start))
    return found


def _said(blocked: Sequence[Difference], later: Sequence[Difference], in_the_way: bool) -> str:
    """Describe the changes that are not requested, and why."""
    sentences = []
    if blocked:
        rest = ", and new versions of these days with it" if in_the_way else ""
        sentences.append(f"Waiting for a person{rest}: {_listed(blocked)}. For details run `algobot apply`.")
    if later:
        sentences.append(f"Will be stored on its effective date: {_listed(later)}.")
    return " ".join(sentences)


def _listed(items: Sequence[object]) -> str:
    shown = "; ".join(str(item) for item in items[:_SHOWN])
    return shown + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


SENSORS = (staleness, gaps, declared_state)
