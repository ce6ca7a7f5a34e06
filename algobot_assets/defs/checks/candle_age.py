"""Check the age of each market's newest candle.

Dagster calls an asset fresh even if only an old day was filled. The source's clock decides, or the database's if the
source does not answer.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg

from algobot_assets.defs.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.errors import AlgobotError, SourceError
from algobot_assets.schema.intervals import candle_end
from algobot_assets.schema.symbols import delivery_of
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredMarket
from algobot_assets.store.connection import Store

NAME = "newest_candle"
#: Missed refreshes before a candle counts as late.
_MISSED = 3


def find_late_markets(store: Store, declared: list[tuple[str, str]], now: datetime, allowance: timedelta) -> list[str]:
    """Return a message for each declared, trading market whose next candle closed more than ``allowance`` ago."""
    with store.transaction() as connection:
        stored = {(m.symbol, m.interval): m for m in catalogue.markets(connection)}
        halted = {
            symbol
            for symbol, status in connection.execute(
                "SELECT DISTINCT ON (symbol) symbol, status FROM symbol_rules ORDER BY symbol, effective_from DESC"
            )
            if status not in ("", "TRADING")
        }
    found = []
    for symbol, interval in declared:
        market = stored.get((symbol, interval))
        delivery = delivery_of(symbol)
        delivered = delivery is not None and delivery <= now
        if market is None or symbol in halted or delivered or market.newest is None:
            continue  # not fetched yet, or no more candles to come
        overdue = now - candle_end(interval, market.newest)
        if overdue > allowance:
            found.append(_sentence(market, market.newest, now))
    return found


def _sentence(market: StoredMarket, newest: datetime, now: datetime) -> str:
    age = timedelta(seconds=round((now - newest).total_seconds()))
    return (
        f"{market.symbol} {market.interval}: the newest stored candle ended {newest:%Y-%m-%d %H:%M} UTC, {age} ago. "
        "Check that the schedule `refresh` is on and that its last runs succeeded. To fetch now: `algobot refresh`."
    )


def _newest(
    context: dg.AssetCheckExecutionContext, database: DatabaseResource, feed: FeedResource, state: StateResource
) -> dg.AssetCheckResult:
    settings = Settings()
    clock = "the source's clock"
    try:
        with feed.feed.opened() as source:
            now = source.server_time()
    except SourceError:
        clock = "the database's clock, because the source does not answer"
        with database.store.transaction() as connection:
            now = catalogue.now(connection)
    try:
        declared = [(market.symbol, market.interval) for market in state.load().markets]
    except AlgobotError as error:
        return _result([str(error)], now, clock)
    if context.run.is_partitioned:
        last = context.op_execution_context.partition_key_range.end
        if last < f"{now:%Y-%m-%d}":
            return _result([], now, f"{clock}; the run's days end before today, so no newer candle is expected")
    allowance = timedelta(minutes=_MISSED * settings.refresh_minutes)
    return _result(find_late_markets(database.store, declared, now, allowance), now, clock)


def _result(sentences: list[str], now: datetime, clock: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not sentences,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(sentences) or f"No market is late at {now:%Y-%m-%d %H:%M} UTC ({clock}).",
        metadata={"late": len(sentences)},
    )


# Dagster reads these annotations without resolving them
_newest.__annotations__["context"] = dg.AssetCheckExecutionContext
_newest.__annotations__["return"] = dg.AssetCheckResult
check = dg.asset_check(
    asset="market_data",
    name=NAME,
    description="The newest candle of every declared market is at most three refreshes late.",
)(_newest)
