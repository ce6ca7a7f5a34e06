"""Fetching candles for the run's days: what is missing, how far each day is complete, and what is absent.

A day is complete when its end has passed by the source's clock and the source has answered for all of it; what
it then lacks does not exist and is recorded as a gap. Where candles come from is the feed's affair, and that
one part of a market is fetched while another is written, that of the lanes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

import polars as pl
import psycopg

from algobot_assets.declared.model import Market
from algobot_assets.errors import AlgobotError, ArchivedError, SettingsError
from algobot_assets.feed.source import Fetched, Source, floor_to_grid
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.gap_records import record_gaps
from algobot_assets.pipeline.incremental import DAY
from algobot_assets.pipeline.republished import republished
from algobot_assets.pipeline.run import TableRun, refuse_archived
from algobot_assets.pipeline.source_records import record_listing, record_rules, record_sources, recorded_listing
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
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store import lineage
from algobot_assets.store.archive import archived_months, restore_command
from algobot_assets.store.connection import Store
from algobot_assets.store.digests import NOTHING, day_digests
from algobot_assets.store.lineage import DayInputs, DayLineage
from algobot_assets.store.reader import read_window

CODE_VERSION = "1"
#: For whoever watches a run from within its process: how many windows are planned, and which one is being fetched.
LOG = logging.getLogger("algobot.windows")


@dataclass(frozen=True)
class _Fetch:
    """What fetching one market needs to know: the source, how far it knows, the listing and the symbol's status."""

    source: Source
    known: datetime
    listed: datetime | None
    status: str


#: One part of a market: its rows and what the source had to say about them.
Made = tuple[WindowFrame, tuple[str, ...]]
Job = Callable[[], Made]


def market_data(run: TableRun) -> Iterator[WindowFrame]:
    """What is missing of every declared market in the run's days, market by market, part by part."""
    declared = run.state.load().markets
    run.refuse_unknown([market.name for market in declared])
    markets = [market for market in declared if run.takes(market.symbol, market.interval)]
    claim_exchange(run.store, run.feed.exchange)
    failed: set[Market] = set()
    begun: set[Market] = set()
    with run.feed.opened() as source:
        for market, job in _jobs(run, markets, source, failed):
            try:
                frame, notes = job()
                refuse_archived(run.store, frame)
            except AlgobotError as error:
                if isinstance(error, ArchivedError):
                    run.proceeded -= market not in begun
                run.refuse(str(error))
                failed.add(market)
                continue
            for note in notes:
                run.log.info(note)
            begun.add(market)
            yield frame


def _jobs(
    run: TableRun, markets: Sequence[Market], source: Source, failed: set[Market]
) -> Iterator[tuple[Market, Job]]:
    """The parts to make, in order; a market in ``failed`` is left out from there on."""
    for market in markets:
        try:
            for job in _plan(run, market, source):
                if market in failed:
                    break
                yield market, job
        except AlgobotError as error:
            run.refuse(str(error))


def claim_exchange(store: Store, name: str) -> None:
    """Say, or check, which exchange the database holds. SettingsError where it is another one."""

    def work(connection: psycopg.Connection) -> str:
        connection.execute("INSERT INTO exchange (only_row, name) VALUES (true, %s) ON CONFLICT DO NOTHING", (name,))
        return connection.execute("SELECT name FROM exchange").fetchone()[0]

    held = store.retrying(work, "Reading which exchange the database holds")
    if held != name:
        raise SettingsError(
            f"{store.database!r} holds candles of the exchange {held!r}, and the source is {name!r}: real and "
            "simulated rows must not mix. Choose another database (ALGOBOT_DATABASE) or source (ALGOBOT_SOURCE)."
        )


def _plan(run: TableRun, market: Market, source: Source) -> Iterator[Job]:
    """One job per part of the market that has a day to fetch, or one that was changed by hand.

    Where nothing is to be fetched, the source is asked for its clock only.
    """
    first = max(run.first, market.start)
    if first >= run.end:
        return
    symbol, interval = market.symbol, market.interval
    known = source.known_through(symbol, interval)
    days = [day for day in days_between(first, run.end) if midnight(day) < known]
    run.tally.days += len(days)
    listed = recorded_listing(run.store, symbol, interval)
    window = Window("market_data", first, run.end, symbol, interval, 0, _phase(interval, listed))
    if not days:
        run.refuse(f"{window} lies after what {source.name} knows ({known:%Y-%m-%d %H:%M} UTC): nothing to fetch yet.")
        return
    with run.store.transaction() as connection:
        recorded = lineage.read(connection, window)
    replaced = _replaced(run, source, window) if run.options.check_archives else set()
    forming = floor_to_grid(interval, known, window.phase)
    wanted = [
        day
        for day in days
        if run.options.from_source or day in replaced or not _is_done(recorded.get(day), known, forming)
    ]
    _refuse_unfetchable(run.store, window, [day for day in wanted if day not in recorded])
    edited = sorted(day for day in set(days).difference(wanted) if recorded[day].dirty)
    fetch = _Fetch(source, known, listed, "")
    if wanted:
        rules = source.rules(symbol)
        listed = source.first_open(symbol, interval)
        record_rules(run.store, rules, known.date())
        record_listing(run.store, symbol, interval, listed)
        window = Window("market_data", first, run.end, symbol, interval, 0, _phase(interval, listed))
        fetch = _Fetch(source, known, listed, rules.status if rules else "")
    run.proceeded += 1
    run.tally.computed += len(wanted)
    parts = _parts(wanted, interval)
    LOG.info("plan", extra={"table": "market_data", "planned": len(parts)})
    if len(parts) > 1:
        run.log.info(f"{symbol} {interval}: {len(wanted)} days to fetch in {len(parts)} parts from {wanted[0]} on.")
    for days in _parts(edited, interval):
        yield partial(_adopted, run.store, window, days, recorded)
    for days in parts:
        yield partial(_fetched, fetch, window.of(days[0], days[-1] + DAY), days)


def _refuse_unfetchable(store: Store, window: Window, days: Sequence[date]) -> None:
    """ArchivedError where days that were never stored lie in archived months: nothing is asked for in vain."""
    months = {day.replace(day=1) for day in days}
    with store.transaction() as connection:
        archived = archived_months(connection, months) if months else []
    if archived:
        raise ArchivedError(
            f"{window}: {archived[0]:%Y-%m} is archived, and candles of it that were never stored would have to be "
            f"written. Bring it back first: {restore_command(archived)}."
        )


def _phase(interval: str, listed: datetime | None) -> int | None:
    if interval != "3d":
        return None
    return phase_of(listed) if listed else 0


def _is_done(day: DayLineage | None, known: datetime, forming: datetime) -> bool:
    """Whether nothing of the day can have come since: it is complete, or lasts and no further candle has closed."""
    if day is None:
        return False
    if day.is_complete:
        return True
    begin, end = midnight(day.day), midnight(day.day + DAY)
    return known < end and not day.dirty and day.complete_through >= max(begin, forming)


def _replaced(run: TableRun, source: Source, window: Window) -> set[date]:
    """The stored days of the market whose file has been replaced by its publisher."""
    compared = republished(run.store, source, window.first, window.end, market=(window.symbol, window.interval))
    for item in compared.replaced:
        run.log.info(
            f"{item.symbol} {item.interval}: {item.name} has been published anew since it was loaded; its "
            f"{len(item.days)} days from {item.days[0]} to {item.days[-1]} are fetched again."
        )
    return set(compared.days)


def _parts(days: Sequence[date], interval: str) -> list[list[date]]:
    """What is fetched and written at once: runs of consecutive days within a piece. Of candles within a day it is a
    month, as the archive is cut: a file that fails holds up no earlier one.
    """
    cut = "" if is_intraday(interval) else interval
    return [run for piece in pieces(cut, days) for run in consecutive(piece)]


def _adopted(store: Store, window: Window, days: Sequence[date], recorded: dict[date, DayLineage]) -> Made:
    """Rows changed by hand are kept: their days are recorded anew as they stand, so what follows recomputes.

    ``inputs`` keeps the digest of what the source said, so the difference stays visible.
    """
    part = window.of(days[0], days[-1] + DAY)
    frame = read_window(store, part)
    inputs = [DayInputs(d, recorded[d].complete_through, recorded[d].inputs, code_version=CODE_VERSION) for d in days]
    return WindowFrame(part, frame, inputs), ()


def _fetched(fetch: _Fetch, part: Window, days: Sequence[date]) -> Made:
    """The window's candles as the source has them, with what must be recorded beside them."""
    text = f"{part.symbol} {part.interval} {part.first:%Y-%m}"
    LOG.info("fetching", extra={"table": "market_data", "fetching": text})
    lo, hi = part.bounds
    stretches: list[Fetched] = []
    # before its first candle a market has nothing that could be unknown
    covered = lo if fetch.listed is None else max(lo, min(hi, fetch.listed))
    for stretch in fetch.source.fetch(part.symbol, part.interval, lo, hi):
        if stretch.lo > covered:
            break  # what lies between is unknown; the next run asks again
        stretches.append(stretch)
        covered = max(covered, stretch.hi)
    frame = pl.concat([s.frame for s in stretches]) if stretches else empty("market_data")
    frame = frame.filter(pl.col("timestamp") < covered).sort("timestamp")
    day = frame.select(day_of(part.interval, part.phase).alias("day"))["day"]
    digests = day_digests(frame, content_columns("market_data"), day)
    records = [
        DayInputs(
            item,
            _complete_through(part, item, covered, fetch.known),
            digests.get(item, (0, NOTHING))[1],
            code_version=CODE_VERSION,
        )
        for item in days
    ]

    def record(connection: psycopg.Connection) -> None:
        record_sources(connection, part, days, stretches, fetch.known)
        record_gaps(connection, part, frame, lo, covered, stretches, fetch.listed, fetch.status)

    return WindowFrame(part, frame, records, record, digests), tuple(note for s in stretches for note in s.notes)


def _complete_through(part: Window, day: date, covered: datetime, known: datetime) -> datetime:
    """The end of the day when it has passed and the source answered for all its candles, else how far it did."""
    end = midnight(day + DAY)
    _, last_open = opens_window(part.interval, day, day + DAY, part.phase)
    if covered >= last_open and known >= end:
        return end
    return max(midnight(day), min(covered, end))
