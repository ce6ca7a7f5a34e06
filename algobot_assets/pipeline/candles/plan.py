"""Decide for all markets at once which days of candles to fetch, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from algobot_assets.declared.model import Market
from algobot_assets.errors import AlgobotError, ArchivedError
from algobot_assets.feed.source import Source, SymbolRules, floor_to_grid
from algobot_assets.pipeline.candles.accepted_gaps import AcceptedGap, accepted_by_market
from algobot_assets.pipeline.candles.republished import republished
from algobot_assets.pipeline.candles.source_records import record_listings, record_rules, recorded_listings
from algobot_assets.pipeline.steps.incremental import DAY, Recorded
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.schema.intervals import consecutive, days_between, is_intraday, midnight, phase_of, pieces
from algobot_assets.schema.symbols import delivery_of, end_of_trading
from algobot_assets.schema.windows import Window
from algobot_assets.store.archive import restore_command
from algobot_assets.store.lineage.recorded import Lineages
from algobot_assets.store.lineage.records import DayLineage


@dataclass(frozen=True)
class MarketPlan:
    """The days of one market: to fetch, and changed by hand, to be kept as they are.

    ``known``: the time up to which the source has candles. ``listed``: the open of the market's first candle.
    ``status``: of the symbol, empty if unknown. ``delivery``: when a dated contract ends.
    """

    market: Market
    window: Window
    fetch: Sequence[date]
    edited: Sequence[date]
    recorded: Recorded
    known: datetime
    listed: datetime | None
    status: str
    delivery: datetime | None
    accepted: Sequence[AcceptedGap]

    @property
    def settled(self) -> datetime:
        """The time up to which the market is known: the end of a delivered contract's last day, else the source's."""
        return _settled(self.known, self.delivery)

    def parts(self) -> list[list[date]]:
        """Return the days to fetch and write at once."""
        return _parts(self.fetch, self.market.interval)

    def edited_parts(self) -> list[list[date]]:
        """Return the days changed by hand, to record at once."""
        return _parts(self.edited, self.market.interval)


def plan_markets(run: TableRun, markets: Sequence[Market], source: Source) -> list[MarketPlan]:
    """Return a plan for each market that has days to check; a market that cannot be planned is skipped and reported.

    The number of statements does not depend on the number of markets. If there is nothing to fetch, the only request
    to the source is for its clock.
    """
    stored = _Stored.read(run, markets, source)
    plans = []
    for market in markets:
        try:
            plan = _plan(run, market, source, stored)
        except AlgobotError as error:
            run.skip(str(error))
            continue
        if plan is not None:
            plans.append(plan)
    listed = {(p.market.symbol, p.market.interval): p.listed for p in plans if p.fetch and p.listed is not None}
    record_listings(run.store, listed)
    record_rules(run.store, stored.rules)
    return plans


@dataclass(frozen=True)
class _Stored:
    """What the database knows about the markets, and the order rules that the source gave, with the day they hold."""

    recorded: Lineages
    listings: Mapping[tuple[str, str], datetime]
    accepted: Mapping[tuple[str, str], Sequence[AcceptedGap]]
    replaced: Mapping[tuple[str, str], set[date]]
    rules: dict[str, tuple[SymbolRules, date]]

    @classmethod
    def read(cls, run: TableRun, markets: Iterable[Market], source: Source) -> _Stored:
        return cls(
            Lineages.read(run.store, ("market_data",), run.first, run.end, {market.symbol for market in markets}),
            recorded_listings(run.store),
            accepted_by_market(run.store),
            _replaced(run, source) if run.options.check_archives else {},
            {},
        )


def _plan(run: TableRun, market: Market, source: Source, stored: _Stored) -> MarketPlan | None:
    symbol, interval = market.symbol, market.interval
    key = (symbol, interval)
    first, end = max(run.first, market.start), end_of_trading(symbol, run.end)
    if first >= end:
        return None
    known = source.known_through(symbol, interval)
    delivery = delivery_of(symbol)
    days = [day for day in days_between(first, end) if midnight(day) < known]
    run.day_counts.days += len(days)
    listed = stored.listings.get(key)
    window = Window("market_data", first, end, symbol, interval, 0, _phase(interval, listed))
    if not days:
        run.skip(
            f"{window}: {source.name} has candles only up to {known:%Y-%m-%d %H:%M} UTC, so there is nothing to "
            "fetch yet."
        )
        return None
    recorded = stored.recorded.days(window)
    accepted = stored.accepted.get(key, ())
    settled, forming = _settled(known, delivery), floor_to_grid(interval, known, window.phase)
    # candles may have become available for accepted gaps
    again = stored.replaced.get(key, set()).union(*(gap.days for gap in accepted))
    wanted = [
        day
        for day in days
        if run.options.from_source or day in again or not _is_done(recorded.get(day), settled, forming)
    ]
    _refuse_unfetchable(run, window, [day for day in wanted if day not in recorded])
    edited = sorted(day for day in set(days).difference(wanted) if recorded[day].dirty)
    status = ""
    if wanted:
        rules = source.rules(symbol)
        listed = source.first_open(symbol, interval)
        window = Window("market_data", first, end, symbol, interval, 0, _phase(interval, listed))
        if rules is not None:
            stored.rules[symbol] = rules, known.date()
            status, delivery = rules.status, rules.delivery or delivery
    run.succeeded += 1
    run.day_counts.computed += len(wanted)
    return MarketPlan(market, window, wanted, edited, recorded, known, listed, status, delivery, accepted)


def _refuse_unfetchable(run: TableRun, window: Window, days: Sequence[date]) -> None:
    """Raise ArchivedError before fetching days of archived months that were never stored."""
    archived = sorted(run.archived.intersection(day.replace(day=1) for day in days))
    if archived:
        raise ArchivedError(
            f"{window}: {archived[0]:%Y-%m} is archived, so candles that were never stored cannot be added to it. "
            f"Run {restore_command(archived)} first."
        )


def _settled(known: datetime, delivery: datetime | None) -> datetime:
    """Return the time up to which a market is known, given its source's: a delivered contract has no more candles."""
    if delivery is None or known < delivery:
        return known
    return max(known, midnight(delivery.date() + DAY))


def _phase(interval: str, listed: datetime | None) -> int | None:
    if interval != "3d":
        return None
    return phase_of(listed) if listed else 0


def _is_done(day: DayLineage | None, known: datetime, forming: datetime) -> bool:
    """Return whether there is nothing to fetch: the day is complete, or not over and no further candle has closed."""
    if day is None:
        return False
    if day.is_complete:
        return True
    begin, end = midnight(day.day), midnight(day.day + DAY)
    return known < end and not day.dirty and day.complete_through >= max(begin, forming)


def _replaced(run: TableRun, source: Source) -> dict[tuple[str, str], set[date]]:
    """Return the stored days, by market, whose file has been replaced by its publisher."""
    replaced: dict[tuple[str, str], set[date]] = {}
    for item in republished(run.store, source, run.first, run.end).replaced:
        if not run.includes(item.symbol, item.interval):
            continue
        run.log.info(
            f"{item.symbol} {item.interval}: {item.name} has been replaced by its publisher since it was loaded. "
            f"Fetching its {len(item.days)} days from {item.days[0]} to {item.days[-1]} again."
        )
        replaced.setdefault((item.symbol, item.interval), set()).update(item.days)
    return replaced


def _parts(days: Sequence[date], interval: str) -> list[list[date]]:
    """Return the days to fetch and write at once: runs of consecutive days within a calendar piece.

    For intraday candles the piece is a month, like the archive's files; a piece that fails leaves earlier ones stored.
    """
    cut = "" if is_intraday(interval) else interval
    return [run for piece in pieces(cut, days) for run in consecutive(piece)]
