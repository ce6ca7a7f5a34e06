"""Record where each stretch of candles came from, where a market begins, and its order rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg

from algobot_assets.feed.source import Fetched, SymbolRules
from algobot_assets.schema.intervals import opens_window
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Delivered:
    """The stretches that a source delivered for some days of a market; ``asked``: its time, where an origin has none.

    A stretch's notes are stored in its first row.
    """

    part: Window
    days: Sequence[date]
    stretches: Sequence[Fetched]
    asked: datetime

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the rows of `sources`, one per day and stretch."""
        notes = [" ".join(stretch.notes) or None for stretch in self.stretches]
        for day in self.days:
            lo, hi = opens_window(self.part.interval, day, day + _DAY, self.part.phase)
            for i, stretch in enumerate(self.stretches):
                first, end = max(lo, stretch.lo), min(hi, stretch.hi)
                if first < end:
                    origin, note = stretch.origin, notes[i]
                    notes[i] = None
                    sha = bytes.fromhex(origin.sha256) if origin.sha256 else None
                    requested = origin.requested_at or self.asked
                    market = self.part.symbol, self.part.interval
                    yield *market, day, first, end, origin.kind, origin.name, sha, requested, note


def record_sources(connection: psycopg.Connection, delivered: Sequence[Delivered]) -> None:
    """Replace the rows of `sources` for the days of all parts."""
    names = ("symbol", "interval", "first", "end")
    connection.execute(
        """DELETE FROM sources AS s USING unnest(%s::varchar[], %s::varchar[], %s::date[], %s::date[])
                                          AS w (symbol, "interval", first_day, end_day)
            WHERE s.symbol = w.symbol AND s."interval" = w."interval" AND s.day >= w.first_day AND s.day < w.end_day""",
        [[getattr(each.part, name) for each in delivered] for name in names],
    )
    with (
        connection.cursor() as cursor,
        cursor.copy(
            """COPY sources (symbol, "interval", day, first_open, end_open, kind, name, sha256, requested_at, note)
               FROM STDIN"""
        ) as copy,
    ):
        for each in delivered:
            for row in each.rows():
                copy.write_row(row)


def recorded_listings(store: Store) -> dict[tuple[str, str], datetime]:
    """Return the recorded open of each market's first candle."""
    with store.transaction() as connection:
        rows = connection.execute("""SELECT symbol, "interval", first_open FROM listings""").fetchall()
    return {(symbol, interval): opened.astimezone(UTC) for symbol, interval, opened in rows}


def record_listings(store: Store, listed: Mapping[tuple[str, str], datetime]) -> None:
    """Store the open of each market's first candle; an earlier one replaces a later one."""
    if not listed:
        return
    columns = zip(*((symbol, interval, opened) for (symbol, interval), opened in sorted(listed.items())), strict=True)
    store.retrying(
        lambda connection: connection.execute(
            """INSERT INTO listings (symbol, "interval", first_open)
               SELECT * FROM unnest(%s::varchar[], %s::varchar[], %s::timestamptz[])
                   ON CONFLICT (symbol, "interval") DO UPDATE SET first_open = excluded.first_open
                WHERE listings.first_open > excluded.first_open""",
            list(map(list, columns)),
        ),
        "Recording listings",
    )


def record_rules(store: Store, rules: Mapping[str, tuple[SymbolRules, date]]) -> None:
    """Store the order rules of symbols, each with its day, if they are new or differ from the latest stored ones."""
    if not rules:
        return
    rows = [
        (symbol, day, found.status, found.tick, found.step, found.min_notional)
        for symbol, (found, day) in sorted(rules.items())
    ]
    store.retrying(
        lambda connection: connection.execute(
            """INSERT INTO symbol_rules (symbol, effective_from, status, tick_size, step_size, min_notional)
               SELECT r.* FROM unnest(%s::varchar[], %s::date[], %s::varchar[], %s::numeric[], %s::numeric[],
                                      %s::numeric[]) AS r (symbol, day, status, tick, step, least)
                WHERE NOT EXISTS (
                    SELECT FROM (SELECT * FROM symbol_rules AS s WHERE s.symbol = r.symbol
                                  ORDER BY effective_from DESC LIMIT 1) AS latest
                     WHERE (latest.status, latest.tick_size, latest.step_size, latest.min_notional)
                           IS NOT DISTINCT FROM (r.status, r.tick, r.step, r.least))
                   ON CONFLICT (symbol, effective_from) DO UPDATE SET status = excluded.status,
                      tick_size = excluded.tick_size, step_size = excluded.step_size,
                      min_notional = excluded.min_notional""",
            [list(column) for column in zip(*rows, strict=True)],
        ),
        "Recording the rules of symbols",
    )
