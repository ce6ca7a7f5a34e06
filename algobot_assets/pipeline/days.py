"""Decide which days a command, a run or a schedule may cover, and explain why others are invalid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from algobot_assets.declared.model import Market
from algobot_assets.errors import SettingsError, SourceError
from algobot_assets.feed.open import CandleFeed
from algobot_assets.schema.intervals import FIRST_DAY
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.store.connection import Store


@dataclass(frozen=True)
class DayRange:
    """The days first to last, both included. ``remark`` says which of the requested days are skipped, and why."""

    first: date
    last: date
    remark: str | None = None


@dataclass(frozen=True)
class NewestDay:
    """The newest day that can be computed, and the reason why there is no newer one."""

    day: date
    reason: str


def today() -> date:
    """Return the current UTC day by this machine's clock, which also ends Dagster's partitions."""
    return datetime.now(UTC).date()


def newest_day(feed: CandleFeed, stored_through: date | None = None) -> NewestDay:
    """Return the newest day of a feed: today, or for a folder its last day or the last stored one, if that is later.

    An exchange is not contacted; if it is down, the fetch fails later.
    """
    now = today()
    if feed.is_folder:
        with feed.opened() as source:
            end = source.server_time()
        last = max((end - timedelta(microseconds=1)).date(), stored_through or FIRST_DAY)
        if last < now:
            return NewestDay(last, f"the candles of {source.name} end at {end:%Y-%m-%d %H:%M} UTC")
    return NewestDay(now, f"today is {now}")


def require_days(first: date, last: date) -> None:
    """Raise SettingsError if the range starts before the first partition or in the future, or is reversed."""
    if first < FIRST_DAY:
        raise SettingsError(f"{first} lies before the first partition, {FIRST_DAY}: Binance has no candles before it.")
    if first > today():
        raise SettingsError(f"{first} lies in the future (today is {today()}). Choose an earlier day.")
    if last < first:
        raise SettingsError(f"The range ends on {last}, before it starts on {first}. Write the earlier day first.")


def fit_days(first: date, last: date, newest: NewestDay, markets: Sequence[Market] = ()) -> DayRange:
    """Limit a requested range to the days that exist.

    ``markets``: those to be computed; at least one must have started by the last day. SettingsError if no day is left.
    """
    require_days(first, last)
    if first > newest.day:
        raise SettingsError(f"There are no candles on {first}: {newest.reason}. Choose a day up to {newest.day}.")
    if markets and (start := min(market.start for market in markets)) > min(last, newest.day):
        raise SettingsError(
            f"No declared market has started by {min(last, newest.day)}: the first one starts on {start}. Choose later "
            "days, or declare an earlier `start` in algobot.yaml."
        )
    if last <= newest.day:
        return DayRange(first, last)
    return DayRange(first, newest.day, f"Days after {newest.day} are skipped: {newest.reason}.")


def outdated_markets(
    store: Store, markets: Sequence[Market], newest: date, known_through: Callable[[Market], datetime]
) -> dict[str, date]:
    """Return the markets for which the source may have new candles, each with the first day to fetch.

    A market is up to date if its candles are stored as far as the source has any, also if it ended long ago. Markets
    that start after ``newest`` are not outdated yet. ``known_through``: returns the time up to which the source
    knows a market.
    """
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT symbol, "interval", max(day), max(complete_through),
                      min(day) FILTER (WHERE complete_through < (day + 1)::timestamp AT TIME ZONE 'UTC')
                 FROM lineage WHERE table_name = 'market_data' GROUP BY 1, 2"""
        ).fetchall()
    recorded = {(symbol, interval): rest for symbol, interval, *rest in rows}
    found: dict[str, date] = {}
    for market in markets:
        start = max(market.start, FIRST_DAY)
        last, through, incomplete = recorded.get((market.symbol, market.interval), (None, None, None))
        first = start if last is None else (incomplete or last + timedelta(days=1))
        if first > newest or (incomplete is None and first >= end_of_trading(market.symbol, date.max)):
            continue
        if through is not None and (incomplete is None or incomplete == last):
            try:
                if known_through(market) <= through:
                    continue
            except SourceError:  # the run will explain
                pass
        found[market.name] = first
    return found
