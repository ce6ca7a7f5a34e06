"""Record where each stretch of candles came from, where a market begins, and its order rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import psycopg

from algobot_assets.feed.source import Fetched, SymbolRules
from algobot_assets.schema.intervals import opens_window
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store

_DAY = timedelta(days=1)


def record_sources(
    connection: psycopg.Connection, part: Window, days: Sequence[date], stretches: Sequence[Fetched], asked: datetime
) -> None:
    """Replace the rows of `sources` for the window's days. ``asked``: the source's time, for origins that carry none.

    A stretch's notes are stored in its first row.
    """
    connection.execute(
        """DELETE FROM sources WHERE symbol = %s AND "interval" = %s AND day >= %s AND day < %s""",
        (part.symbol, part.interval, part.first, part.end),
    )
    rows = []
    notes = [" ".join(stretch.notes) or None for stretch in stretches]
    for day in days:
        lo, hi = opens_window(part.interval, day, day + _DAY, part.phase)
        for i, stretch in enumerate(stretches):
            first, end = max(lo, stretch.lo), min(hi, stretch.hi)
            if first < end:
                origin, note = stretch.origin, notes[i]
                notes[i] = None
                sha = bytes.fromhex(origin.sha256) if origin.sha256 else None
                requested = origin.requested_at or asked
                rows.append(
                    (part.symbol, part.interval, day, first, end, origin.kind, origin.name, sha, requested, note)
                )
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(
                """INSERT INTO sources (symbol, "interval", day, first_open, end_open, kind, name, sha256,
                                        requested_at, note)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
                rows,
            )


def recorded_listing(store: Store, symbol: str, interval: str) -> datetime | None:
    """Return the recorded open of the market's first candle."""
    with store.transaction() as connection:
        row = connection.execute(
            """SELECT first_open FROM listings WHERE symbol = %s AND "interval" = %s""", (symbol, interval)
        ).fetchone()
    return None if row is None else row[0].astimezone(UTC)


def record_listing(store: Store, symbol: str, interval: str, listed: datetime | None) -> None:
    """Store the open of a market's first candle; an earlier one replaces a later one."""
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


def record_rules(store: Store, rules: SymbolRules | None, today: date) -> None:
    """Store a symbol's order rules, as of ``today``, if they are new or differ from the latest stored ones."""
    if rules is None:
        return
    store.retrying(
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
                "symbol": rules.symbol,
                "day": today,
                "status": rules.status,
                "tick": rules.tick,
                "step": rules.step,
                "least": rules.min_notional,
            },
        ),
        f"Recording the rules of {rules.symbol}",
    )
