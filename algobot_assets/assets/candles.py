"""Fetching candles for the run's days: what is missing, how far each day is complete, and what is absent.

A day is complete when its end has passed by the source's clock and the source has answered for all of it; what
it then lacks does not exist and is recorded as a gap. Where candles come from is the feed's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

import polars as pl
import psycopg

from algobot_assets.assets.chain import DAY
from algobot_assets.assets.factory import TableRun, attempt
from algobot_assets.declared.model import Market
from algobot_assets.errors import SettingsError
from algobot_assets.feed.source import Fetched, Source
from algobot_assets.schema.frames import empty
from algobot_assets.schema.intervals import (
    candle_end,
    day_of,
    expected_opens,
    floor_open,
    midnight,
    opens_window,
    phase_of,
)
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store import lineage
from algobot_assets.store.connection import Store
from algobot_assets.store.digests import NOTHING, day_digests
from algobot_assets.store.lineage import DayInputs, DayLineage
from algobot_assets.store.reader import read_window
from algobot_assets.windows import WindowFrame

CODE_VERSION = "1"


def market_frames(run: TableRun) -> Iterator[WindowFrame]:
    """What is missing of every declared market in the run's days, market by market, month by month."""
    markets = run.state.load().markets
    claim_exchange(run.store, run.feed.exchange)
    with run.feed.opened() as source:
        for market in markets:
            yield from attempt(run, _market(run, market, source))


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


def _market(run: TableRun, market: Market, source: Source) -> Iterator[WindowFrame]:
    first = max(run.first, market.start)
    if first >= run.end:
        return
    symbol, interval = market.symbol, market.interval
    known = source.known_through(symbol, interval)
    listed = source.first_open(symbol, interval)
    _record_listing(run.store, symbol, interval, listed)
    _record_rules(run, source, symbol)
    phase = phase_of(listed) if interval == "3d" and listed else (0 if interval == "3d" else None)
    window = Window("market_data", first, run.end, symbol, interval, 0, phase)
    with run.store.transaction() as connection:
        recorded = lineage.read(connection, window)
    days = [day for day in _days(first, run.end) if midnight(day) < known]
    run.tally.days += len(days)
    if not days:
        run.refuse(f"{window} lies after what {source.name} knows ({known:%Y-%m-%d %H:%M} UTC): nothing to fetch yet.")
        return
    run.proceeded += 1
    wanted = [day for day in days if run.options.from_source or not _is_whole(recorded.get(day))]
    edited = [day for day in days if day not in wanted and recorded[day].dirty]
    for month in _months(edited):
        yield _adopted(run.store, window, month, recorded)
    for month in _months(wanted):
        run.tally.computed += len(month)
        yield _fetched(run, source, window.of(month[0], month[-1] + DAY), month, known, listed)


def _days(first: date, end: date) -> list[date]:
    return [first + timedelta(days=i) for i in range((end - first).days)]


def _is_whole(day: DayLineage | None) -> bool:
    return day is not None and day.is_complete


def _months(days: Sequence[date]) -> Iterator[list[date]]:
    """Runs of consecutive days within one month."""
    numbered = enumerate(days)
    for _, run in groupby(numbered, lambda item: (item[1].year, item[1].month, item[1].toordinal() - item[0])):
        yield [day for _, day in run]


def _adopted(store: Store, window: Window, days: Sequence[date], recorded: dict[date, DayLineage]) -> WindowFrame:
    """Rows changed by hand are kept: their days are recorded anew as they stand, so what follows recomputes.

    ``inputs`` keeps the digest of what the source said, so the difference stays visible.
    """
    part = window.of(days[0], days[-1] + DAY)
    frame = read_window(store, part)
    return WindowFrame(
        part,
        frame,
        [DayInputs(d, recorded[d].complete_through, recorded[d].inputs, code_version=CODE_VERSION) for d in days],
    )


def _fetched(
    run: TableRun, source: Source, part: Window, days: Sequence[date], known: datetime, listed: datetime | None
) -> WindowFrame:
    lo, hi = part.bounds
    stretches: list[Fetched] = []
    covered = lo
    for stretch in source.fetch(part.symbol, part.interval, lo, hi):
        if stretch.lo > covered:
            break  # what lies between is unknown; the next run asks again
        stretches.append(stretch)
        covered = max(covered, stretch.hi)
        for note in stretch.notes:
            run.log.info(note)
    frame = pl.concat([s.frame for s in stretches]) if stretches else empty("market_data")
    frame = frame.filter(pl.col("timestamp") < covered).sort("timestamp")
    day = frame.select(day_of(part.interval, part.phase).alias("day"))["day"]
    digests = day_digests(frame, content_columns("market_data"), day)
    records = [
        DayInputs(
            item,
            _complete_through(part, item, covered, known),
            digests.get(item, (0, NOTHING))[1],
            code_version=CODE_VERSION,
        )
        for item in days
    ]
    absent = _absent(part, lo, covered, frame)

    def record(connection: psycopg.Connection) -> None:
        _record_sources(connection, part, days, stretches, source.server_time())
        _record_gaps(connection, part, lo, covered, absent, stretches, listed)

    return WindowFrame(part, frame, records, record)


def _complete_through(part: Window, day: date, covered: datetime, known: datetime) -> datetime:
    """The end of the day when it has passed and the source answered for all its candles, else how far it did."""
    end = midnight(day + DAY)
    _, last_open = opens_window(part.interval, day, day + DAY, part.phase)
    if covered >= last_open and known >= end:
        return end
    return max(midnight(day), min(covered, end))


def _absent(part: Window, lo: datetime, hi: datetime, frame: pl.DataFrame) -> list[tuple[datetime, datetime]]:
    """Runs of grid points in [lo, hi) without a candle, as half-open ranges of opens."""
    grid = expected_opens(part.interval, lo, hi, part.phase)
    present = frame.select(floor_open(part.interval, part.phase).alias("timestamp"))["timestamp"]
    missing = grid.to_frame().with_row_index("i").join(present.to_frame(), on="timestamp", how="anti").sort("i")
    runs = missing.group_by((pl.col("i") - pl.int_range(pl.len())).alias("run"), maintain_order=True).agg(
        pl.col("timestamp").first().alias("first"), pl.col("timestamp").last().alias("last")
    )
    return [(first, candle_end(part.interval, last)) for _, first, last in runs.iter_rows()]


def _record_sources(
    connection: psycopg.Connection, part: Window, days: Sequence[date], stretches: Sequence[Fetched], now: datetime
) -> None:
    connection.execute(
        """DELETE FROM sources WHERE symbol = %s AND "interval" = %s AND day >= %s AND day < %s""",
        (part.symbol, part.interval, part.first, part.end),
    )
    rows = []
    for day in days:
        lo, hi = opens_window(part.interval, day, day + DAY, part.phase)
        for stretch in stretches:
            first, end = max(lo, stretch.lo), min(hi, stretch.hi)
            if first < end:
                origin = stretch.origin
                sha = bytes.fromhex(origin.sha256) if origin.sha256 else None
                rows.append(
                    (
                        part.symbol,
                        part.interval,
                        day,
                        first,
                        end,
                        origin.kind,
                        origin.name,
                        sha,
                        origin.requested_at or now,
                    )
                )
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO sources VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", rows)


def _record_gaps(
    connection: psycopg.Connection,
    part: Window,
    lo: datetime,
    hi: datetime,
    absent: Sequence[tuple[datetime, datetime]],
    stretches: Sequence[Fetched],
    listed: datetime | None,
) -> None:
    connection.execute(
        """DELETE FROM gaps WHERE symbol = %s AND "interval" = %s AND first_open >= %s AND first_open < %s""",
        (part.symbol, part.interval, lo, hi),
    )
    for first, end in absent:
        reason = "listing" if listed is None or end <= listed else "outage"
        asked = [s.origin for s in stretches if s.lo < end and first < s.hi]
        evidence = "; ".join(dict.fromkeys(f"{o.kind} {o.name} has no candle there" for o in asked))
        connection.execute(
            """INSERT INTO gaps (symbol, "interval", first_open, end_open, reason, evidence)
               VALUES (%s, %s, %s, %s, %s, %s)""",
            (part.symbol, part.interval, first, end, reason, evidence),
        )


def _record_listing(store: Store, symbol: str, interval: str, listed: datetime | None) -> None:
    if listed is not None:
        store.retrying(
            lambda connection: connection.execute(
                """INSERT INTO listings (symbol, "interval", first_open) VALUES (%s, %s, %s)
                   ON CONFLICT (symbol, "interval") DO UPDATE SET first_open = excluded.first_open
                    WHERE listings.first_open > excluded.first_open""",
                (symbol, interval, listed),
            ),
            f"Recording the listing of {symbol} {interval}",
        )


def _record_rules(run: TableRun, source: Source, symbol: str) -> None:
    """Store the symbol's order rules when they are new or differ from the latest stored ones."""
    rules = source.rules(symbol)
    if rules is None:
        return
    run.store.retrying(
        lambda connection: connection.execute(
            """INSERT INTO symbol_rules (symbol, effective_from, status, tick_size, step_size, min_notional)
               SELECT %(symbol)s::text, %(day)s::date, %(status)s::text, %(tick)s::numeric, %(step)s::numeric,
                      %(least)s::numeric
                WHERE NOT EXISTS (
                    SELECT FROM (SELECT * FROM symbol_rules WHERE symbol = %(symbol)s::text
                                   ORDER BY effective_from DESC LIMIT 1) AS latest
                     WHERE (status, tick_size, step_size, min_notional)
                           IS NOT DISTINCT FROM (%(status)s::text, %(tick)s::numeric, %(step)s::numeric,
                                                %(least)s::numeric))
               ON CONFLICT (symbol, effective_from) DO UPDATE SET status = excluded.status,
                   tick_size = excluded.tick_size, step_size = excluded.step_size,
                   min_notional = excluded.min_notional""",
            {
                "symbol": symbol,
                "day": source.server_time().date(),
                "status": rules.status,
                "tick": rules.tick,
                "step": rules.step,
                "least": rules.min_notional,
            },
        ),
        f"Recording the rules of {symbol}",
    )
