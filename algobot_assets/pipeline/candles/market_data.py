"""Fetch the candles that are missing in the run's days."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import psycopg

from algobot_assets.errors import AlgobotError, ArchivedError, SettingsError
from algobot_assets.feed.source import Source
from algobot_assets.pipeline.candles.parts import CODE_VERSION, LOG, FetchedPart, adopted_part, fetched_part
from algobot_assets.pipeline.candles.plan import MarketPlan, plan_markets
from algobot_assets.pipeline.skipped import NO_CANDLES, PROVIDE, Skipped
from algobot_assets.pipeline.steps.frames import WindowFrame
from algobot_assets.pipeline.steps.incremental import unknown_stretches
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.store.connection import Store

__all__ = ["CODE_VERSION", "claim_exchange", "market_data"]
Job = Callable[[], FetchedPart]


def market_data(run: TableRun) -> Iterator[WindowFrame]:
    """Yield the missing candles of every declared market in the run's days, market by market, part by part."""
    declared = run.state.load().markets
    run.skip_unknown([market.name for market in declared])
    markets = [market for market in declared if run.includes(market.symbol, market.interval)]
    claim_exchange(run.store, run.feed.exchange)
    with run.feed.opened() as source:
        plans = plan_markets(run, markets, source)
        LOG.info("plan", extra={"table": "market_data", "planned": sum(len(plan.parts()) for plan in plans)})
        for plan in plans:
            yield from _frames(run, plan, source)


def _frames(run: TableRun, plan: MarketPlan, source: Source) -> Iterator[WindowFrame]:
    """Yield the parts of one market; after a part that fails, the rest of the market is skipped."""
    complete = {day: plan.recorded[day].is_complete for day in plan.recorded}
    began = False
    for job in _jobs(run, plan, source):
        try:
            frame, notes = job()
            run.refuse_archived(frame)
        except AlgobotError as error:
            run.succeeded -= isinstance(error, ArchivedError) and not began
            run.skip(str(error))
            return
        for note in notes:
            run.log.info(note)
        began = True
        complete.update((day.day, day.is_complete) for day in frame.days)
        yield frame
    for first, last in unknown_stretches(complete):
        run.skip(Skipped(run.table, NO_CANDLES, PROVIDE, plan.market.name, first=first, last=last))


def _jobs(run: TableRun, plan: MarketPlan, source: Source) -> Iterator[Job]:
    parts = plan.parts()
    if len(parts) > 1:
        run.log.info(
            f"{plan.market.name}: {len(plan.fetch)} days to fetch in {len(parts)} parts from {plan.fetch[0]} on."
        )
    for days in plan.edited_parts():
        yield partial(adopted_part, plan, run.store, days)
    for days in parts:
        yield partial(fetched_part, plan, source, days)


def claim_exchange(store: Store, name: str) -> None:
    """Record which exchange's candles the database holds. SettingsError if it already holds another's."""

    def work(connection: psycopg.Connection) -> str:
        connection.execute("INSERT INTO exchange (only_row, name) VALUES (true, %s) ON CONFLICT DO NOTHING", (name,))
        (held,) = connection.execute("SELECT name FROM exchange").fetchall()
        return str(held[0])

    held = store.retrying(work, "Reading which exchange the database holds")
    if held != name:
        raise SettingsError(
            f"{store.database!r} holds candles of the exchange {held!r}, but the source is {name!r}; real and "
            "simulated rows must not mix. Choose another database (ALGOBOT_DATABASE) or source (ALGOBOT_SOURCE)."
        )
