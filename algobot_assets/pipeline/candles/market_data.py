"""Fetch the candles that are missing in the run's days.

A day is complete when its end has passed by the source's clock and the source covers all of it; candles that are
still missing do not exist and are recorded as a gap. Days that the source does not cover stay incomplete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial

import polars as pl
import psycopg

from algobot_assets.declared.model import Market
from algobot_assets.errors import AlgobotError, ArchivedError, SettingsError
from algobot_assets.feed.source import Fetched, Source, floor_to_grid
from algobot_assets.pipeline.candles.accepted_gaps import ACCEPTED, AcceptedGap, accepted_gaps, unanswered
from algobot_assets.pipeline.candles.gap_records import Gap, record_gaps
from algobot_assets.pipeline.candles.republished import republished
from algobot_assets.pipeline.candles.source_records import (
    record_listing,
    record_rules,
    record_sources,
    recorded_listing,
)
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import DAY, unknown_stretches
from algobot_assets.pipeline.run import TableRun, refuse_archived
from algobot_assets.pipeline.skipped import NO_CANDLES, PROVIDE, Skipped
from algobot_assets.schema.frames import empty
from algobot_assets.schema.intervals import (
    consecutive,
    day_of,
    days_between,
    is_intraday,
    midnight,
    opens_window,
    phase_of,
    pieces,
)
from algobot_assets.schema.symbols import delivery_of, end_of_trading
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store import lineage
from algobot_assets.store.archive import archived_months, restore_command
from algobot_assets.store.connection import Store
from algobot_assets.store.digests import NOTHING, day_digests
from algobot_assets.store.lineage import DayInputs, DayLineage
from algobot_assets.store.reader import read_window

CODE_VERSION = "1"
#: For progress displays in this process: how many windows are planned, and which one is being fetched.
LOG = logging.getLogger("algobot.windows")


@dataclass(frozen=True)
class _Fetch:
    """The source of one market, the time up to which it has candles, the listing and the symbol's status."""

    source: Source
    known: datetime
    listed: datetime | None
    status: str
    delivery: datetime | None
    accepted: Sequence[AcceptedGap] = ()

    @property
    def settled(self) -> datetime:
        """The time up to which the market is known: the end of a delivered contract's last day, else the source's."""
        return _settled(self.known, self.delivery)


#: One part of a market: its rows and the notes of the source.
FetchedPart = tuple[WindowFrame, tuple[str, ...]]
Job = Callable[[], FetchedPart]


def market_data(run: TableRun) -> Iterator[WindowFrame]:
    """Yield the missing candles of every declared market in the run's days, market by market, part by part."""
    declared = run.state.load().markets
    run.skip_unknown([market.name for market in declared])
    markets = [market for market in declared if run.includes(market.symbol, market.interval)]
    claim_exchange(run.store, run.feed.exchange)
    failed: set[Market] = set()
    begun: set[Market] = set()
    complete: dict[Market, dict[date, bool]] = {}
    with run.feed.opened() as source:
        for market, job in _jobs(run, markets, source, failed, complete):
            try:
                frame, notes = job()
                refuse_archived(run.store, frame)
            except AlgobotError as error:
                if isinstance(error, ArchivedError):
                    run.succeeded -= market not in begun
                run.skip(str(error))
                failed.add(market)
                continue
            for note in notes:
                run.log.info(note)
            begun.add(market)
            complete[market].update((day.day, day.is_complete) for day in frame.days)
            yield frame
    for market in markets:
        if market not in failed:
            for first, last in unknown_stretches(complete.get(market, {})):
                run.skip(Skipped(run.table, NO_CANDLES, PROVIDE, market.name, first=first, last=last))


def _jobs(
    run: TableRun,
    markets: Sequence[Market],
    source: Source,
    failed: set[Market],
    complete: dict[Market, dict[date, bool]],
) -> Iterator[tuple[Market, Job]]:
    """Yield the parts to fetch, in order; the rest of a market in ``failed`` is skipped.

    The recorded days of each market are added to ``complete``.
    """
    for market in markets:
        complete[market] = {}
        try:
            for job in _plan(run, market, source, complete[market]):
                if market in failed:
                    break
                yield market, job
        except AlgobotError as error:
            run.skip(str(error))
            failed.add(market)


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


def _plan(run: TableRun, market: Market, source: Source, complete: dict[date, bool]) -> Iterator[Job]:
    """Yield one job per part of the market with days to fetch or days that were changed by hand.

    If there is nothing to fetch, the only request is for the source's clock.
    """
    symbol, interval = market.symbol, market.interval
    first, end = max(run.first, market.start), end_of_trading(symbol, run.end)
    if first >= end:
        return
    known = source.known_through(symbol, interval)
    delivery = delivery_of(symbol)
    settled = _settled(known, delivery)
    days = [day for day in days_between(first, end) if midnight(day) < known]
    run.day_counts.days += len(days)
    listed = recorded_listing(run.store, symbol, interval)
    window = Window("market_data", first, end, symbol, interval, 0, _phase(interval, listed))
    if not days:
        run.skip(
            f"{window}: {source.name} has candles only up to {known:%Y-%m-%d %H:%M} UTC, so there is nothing to "
            "fetch yet."
        )
        return
    with run.store.transaction() as connection:
        recorded = lineage.read(connection, window)
        accepted = accepted_gaps(connection, symbol, interval)
    complete.update((day, item.is_complete) for day, item in recorded.items())
    replaced = _replaced(run, source, window) if run.options.check_archives else set()
    forming = floor_to_grid(interval, known, window.phase)
    # candles may have become available for accepted gaps
    again = replaced.union(*(gap.days for gap in accepted))
    wanted = [
        day
        for day in days
        if run.options.from_source or day in again or not _is_done(recorded.get(day), settled, forming)
    ]
    _refuse_unfetchable(run.store, window, [day for day in wanted if day not in recorded])
    edited = sorted(day for day in set(days).difference(wanted) if recorded[day].dirty)
    fetch = _Fetch(source, known, listed, "", delivery, accepted)
    if wanted:
        rules = source.rules(symbol)
        listed = source.first_open(symbol, interval)
        record_rules(run.store, rules, known.date())
        record_listing(run.store, symbol, interval, listed)
        window = Window("market_data", first, end, symbol, interval, 0, _phase(interval, listed))
        delivery = rules.delivery if rules and rules.delivery else delivery
        fetch = _Fetch(source, known, listed, rules.status if rules else "", delivery, accepted)
    run.succeeded += 1
    run.day_counts.computed += len(wanted)
    parts = _parts(wanted, interval)
    LOG.info("plan", extra={"table": "market_data", "planned": len(parts)})
    if len(parts) > 1:
        run.log.info(f"{symbol} {interval}: {len(wanted)} days to fetch in {len(parts)} parts from {wanted[0]} on.")
    for days in _parts(edited, interval):
        yield partial(_adopted, run.store, window, days, recorded)
    for days in parts:
        yield partial(_fetched, fetch, window.of(days[0], days[-1] + DAY), days)


def _refuse_unfetchable(store: Store, window: Window, days: Sequence[date]) -> None:
    """Raise ArchivedError before fetching days of archived months that were never stored."""
    months = {day.replace(day=1) for day in days}
    with store.transaction() as connection:
        archived = archived_months(connection, months) if months else []
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


def _replaced(run: TableRun, source: Source, window: Window) -> set[date]:
    """Return the market's stored days whose file has been replaced by its publisher."""
    compared = republished(run.store, source, window.first, window.end, market=(window.symbol, window.interval))
    for item in compared.replaced:
        run.log.info(
            f"{item.symbol} {item.interval}: {item.name} has been replaced by its publisher since it was loaded. "
            f"Fetching its {len(item.days)} days from {item.days[0]} to {item.days[-1]} again."
        )
    return set(compared.days)


def _parts(days: Sequence[date], interval: str) -> list[list[date]]:
    """Return the days to fetch and write at once: runs of consecutive days within a calendar piece.

    For intraday candles the piece is a month, like the archive's files; a piece that fails leaves earlier ones stored.
    """
    cut = "" if is_intraday(interval) else interval
    return [run for piece in pieces(cut, days) for run in consecutive(piece)]


def _adopted(store: Store, window: Window, days: Sequence[date], recorded: dict[date, DayLineage]) -> FetchedPart:
    """Keep rows that were changed by hand: record their days as they are, so that later tables recompute.

    ``inputs`` keeps the digest of the source's rows, so the difference stays visible.
    """
    part = window.of(days[0], days[-1] + DAY)
    frame = read_window(store, part)
    inputs = [DayInputs(d, recorded[d].complete_through, recorded[d].inputs, code_version=CODE_VERSION) for d in days]
    return WindowFrame(part, frame, inputs), ()


def _fetched(fetch: _Fetch, part: Window, days: Sequence[date]) -> FetchedPart:
    """Fetch the window's candles, with the sources and gaps to record in their transaction."""
    text = f"{part.symbol} {part.interval} {part.first:%Y-%m}"
    LOG.info("fetching", extra={"table": "market_data", "fetching": text})
    stretches, accepted, answered = _answers(fetch, part)
    frame = pl.concat([s.frame for s in stretches]) if stretches else empty("market_data")
    frame = frame.sort("timestamp")
    day = frame.select(day_of(part.interval, part.phase).alias("day"))["day"]
    digests = day_digests(frame, content_columns("market_data"), day)
    records = [
        DayInputs(
            item,
            _complete_through(part, item, answered, fetch.settled),
            digests.get(item, (0, NOTHING))[1],
            code_version=CODE_VERSION,
        )
        for item in days
    ]

    def record(connection: psycopg.Connection) -> None:
        record_sources(connection, part, days, stretches, fetch.known)
        for lo, hi in answered:
            record_gaps(
                connection, part, frame, lo, hi, stretches, accepted, fetch.listed, fetch.status, fetch.delivery
            )

    return WindowFrame(part, frame, records, record, digests), tuple(note for s in stretches for note in s.notes)


def _answers(fetch: _Fetch, part: Window) -> tuple[list[Fetched], list[Gap], list[tuple[datetime, datetime]]]:
    """Return the window's stretches from the source, its accepted gaps, and the ranges of opens that both cover.

    After a stretch that the source does not cover, its candles count from the next whole day on: the days in between
    stay incomplete, and the next run fetches them again.
    """
    lo, hi = opens_window(part.interval, part.first, part.end, part.phase)
    delivered = list(fetch.source.fetch(part.symbol, part.interval, lo, hi))
    # nothing is unknown before a market's first candle
    answered = [(lo, lo if fetch.listed is None else max(lo, min(hi, fetch.listed)))]
    begin, covered = answered[0]
    accepted = _accepted(fetch.accepted, part, [(begin, covered), *((s.lo, s.hi) for s in delivered)])
    stretches: list[Fetched] = []
    gaps: list[Gap] = []
    items: list[tuple[datetime, datetime, Fetched | Gap]] = [(s.lo, s.hi, s) for s in delivered]
    for first, end, item in sorted([*items, *accepted], key=lambda each: each[0]):
        begin, covered = answered[-1]
        start = first
        if first <= covered:
            answered[-1] = begin, max(covered, end)
        else:
            start = _next_day(part, first)
            if start >= end:
                continue
            answered.append((start, end))
        if isinstance(item, Gap):
            gaps.append(replace(item, first=start))
        elif start == first:
            stretches.append(item)
        else:
            frame = item.frame.filter(pl.col("timestamp") >= start)
            stretches.append(replace(item, lo=start, frame=frame))
    begin, covered = answered[-1]
    if fetch.delivery is not None and covered >= fetch.delivery:
        answered[-1] = begin, max(covered, hi)  # nothing trades after the delivery
    return stretches, gaps, answered


def _accepted(
    accepted: Sequence[AcceptedGap], part: Window, answered: Sequence[tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, datetime, Gap]]:
    """Yield the ranges of the window that the source does not cover and a person has accepted as absent."""
    for known in accepted:
        first, end = max(part.first, known.first), min(part.end, known.last + DAY)
        if first < end:
            span = opens_window(part.interval, first, end, part.phase)
            for lo, hi in unanswered(*span, answered):
                yield lo, hi, Gap(lo, hi, ACCEPTED, known.evidence)


def _next_day(part: Window, moment: datetime) -> datetime:
    """Return the first open of the window's first day that begins at or after ``moment``."""
    opens = (opens_window(part.interval, day, day + DAY, part.phase)[0] for day in days_between(part.first, part.end))
    return next((opened for opened in opens if opened >= moment), datetime.max.replace(tzinfo=UTC))


def _complete_through(
    part: Window, day: date, answered: Sequence[tuple[datetime, datetime]], known: datetime
) -> datetime:
    """Return the time up to which the source covers the day: the day's end only once that has passed."""
    end = midnight(day + DAY)
    first_open, last_open = opens_window(part.interval, day, day + DAY, part.phase)
    covered = max((hi for lo, hi in answered if lo <= first_open), default=midnight(day))
    if covered >= last_open and known >= end:
        return end
    return max(midnight(day), min(covered, end))
