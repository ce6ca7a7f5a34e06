"""List the stored data and how current it is: markets, strategy versions, newest candles, ends of ledgers.

All queries read lineage and single index entries and never count rows, so they take milliseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.errors import WindowError
from algobot_assets.schema import frames
from algobot_assets.schema.intervals import end_of, phase_of
from algobot_assets.store.session import fetch_row, fetch_value


@dataclass(frozen=True)
class StoredMarket:
    """One market of market_data. Times are UTC.

    ``newest`` is the end of its last candle. ``candles`` and ``days`` are counted in lineage. No day between the first
    and ``complete_through`` is missing or unfinished.
    """

    symbol: str
    interval: str
    first_candle: datetime | None
    last_candle: datetime | None
    newest: datetime | None
    candles: int
    days: int
    complete_through: datetime


@dataclass(frozen=True)
class StoredVersion:
    """One row of strategies; ``until`` is the first day on which it is no longer in force, None while it is."""

    id: int
    name: str
    version: int
    symbol: str
    interval: str
    effective_from: date
    until: date | None

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def now(connection: psycopg.Connection) -> datetime:
    """Return the database's clock at the start of the transaction, UTC."""
    return fetch_value(connection.execute("SELECT now()"), datetime).astimezone(UTC)


def markets(connection: psycopg.Connection) -> list[StoredMarket]:
    """Return every market that has recorded candles, ascending."""
    rows = connection.execute(
        """
        WITH market AS (
            SELECT symbol, "interval", sum(rows)::bigint AS candles, count(*) AS days,
                   min(day) FILTER (WHERE rows > 0) AS first_day,
                   max(day) FILTER (WHERE rows > 0) AS last_day,
                   max(complete_through) AS through,
                   max(day) - min(day) + 1 = count(*) AND count(*) FILTER (WHERE unfinished)
                       <= (max(complete_through) < (max(day) + 1)::timestamp AT TIME ZONE 'UTC')::int AS unbroken
              FROM (SELECT *, complete_through < (day + 1)::timestamp AT TIME ZONE 'UTC' AS unfinished
                      FROM lineage WHERE table_name = 'market_data') AS recorded
             GROUP BY symbol, "interval"
        )
        SELECT m.symbol, m."interval", least(first.timestamp, old.first), greatest(last.timestamp, old.last),
               l.first_open, m.candles, m.days,
               -- the newest day may be unfinished; only where another is, or one is missing, the days are walked
               CASE WHEN m.unbroken THEN m.through ELSE (
                   SELECT d.complete_through FROM lineage AS d
                    WHERE d.table_name = 'market_data' AND d.symbol = m.symbol AND d."interval" = m."interval"
                      AND (d.complete_through < (d.day + 1)::timestamp AT TIME ZONE 'UTC'
                           OR NOT EXISTS (SELECT FROM lineage AS n
                                           WHERE n.table_name = 'market_data' AND n.symbol = d.symbol
                                             AND n."interval" = d."interval" AND n.strategy_id = d.strategy_id
                                             AND n.day = d.day + 1))
                    ORDER BY d.day LIMIT 1) END
          FROM market AS m
          LEFT JOIN listings AS l USING (symbol, "interval")
          -- a candle opens at most a month before its day
          LEFT JOIN LATERAL (SELECT timestamp FROM market_data AS c
                              WHERE c.symbol = m.symbol AND c."interval" = m."interval"
                                AND c.timestamp >= (m.first_day - 31)::timestamp AT TIME ZONE 'UTC'
                              ORDER BY timestamp LIMIT 1) AS first ON true
          LEFT JOIN LATERAL (SELECT timestamp FROM market_data AS c
                              WHERE c.symbol = m.symbol AND c."interval" = m."interval"
                                AND c.timestamp >= (m.last_day - 31)::timestamp AT TIME ZONE 'UTC'
                              ORDER BY timestamp DESC LIMIT 1) AS last ON true
          LEFT JOIN LATERAL (SELECT min(first_open) AS first, max(last_open) AS last FROM archived_files AS f
                              WHERE f.table_name = 'market_data' AND f.symbol = m.symbol
                                AND f."interval" = m."interval") AS old ON true
         ORDER BY m.symbol, m."interval"
        """
    )
    return [
        StoredMarket(symbol, interval, first, last, last and _end_of(interval, last, listed), *recorded)
        for symbol, interval, first, last, listed, *recorded in rows
    ]


def require_market(connection: psycopg.Connection, symbol: str, interval: str) -> None:
    """Raise WindowError, with the nearest stored market, if no candles of this one are recorded."""
    stored = connection.execute(
        """SELECT symbol || ' ' || "interval" AS market
             FROM lineage WHERE table_name = 'market_data' GROUP BY symbol, "interval" ORDER BY market"""
    )
    market, known = f"{symbol} {interval}", [row[0] for row in stored]
    if market not in known:
        instead = _suggest(market, known, "market", "materialise market_data")
        raise WindowError(f"No candles of {market} are stored{instead}")


def newest_candle(
    connection: psycopg.Connection, table: str, symbol: str, interval: str, strategy_id: int = 0
) -> tuple[datetime, datetime] | None:
    """Return open and end (exclusive) of the newest candle that has a row in ``table``, or None.

    ``table`` is one of the monthly tables; ``strategy_id`` is for signals. Lineage names the day, so the query reads
    only one or two partitions.
    """
    day = connection.execute(
        """SELECT day FROM lineage
            WHERE table_name = %s AND symbol = %s AND "interval" = %s AND strategy_id = %s AND rows > 0
            ORDER BY day DESC LIMIT 1""",
        (table, symbol, interval, strategy_id),
    ).fetchone()
    if day is None:
        return None
    statement = sql.SQL(
        """SELECT greatest(
                   (SELECT timestamp FROM {} WHERE symbol = %s AND "interval" = %s{}
                       AND timestamp >= (%s::date - 31)::timestamp AT TIME ZONE 'UTC'
                     ORDER BY timestamp DESC LIMIT 1),
                   (SELECT max(last_open) FROM archived_files
                     WHERE table_name = %s AND symbol = %s AND "interval" = %s AND strategy_id = %s)),
                 (SELECT first_open FROM listings WHERE symbol = %s AND "interval" = %s)"""
    ).format(sql.Identifier(table), sql.SQL(" AND strategy_id = %s" if strategy_id else ""))
    parameters = (
        *(symbol, interval, *([strategy_id] if strategy_id else []), day[0]),
        *(table, symbol, interval, strategy_id),
        *(symbol, interval),
    )
    opened, listed = fetch_row(connection.execute(statement, parameters))
    return None if opened is None else (opened.astimezone(UTC), _end_of(interval, opened, listed))


def _end_of(interval: str, opened: datetime, listed: datetime | None) -> datetime:
    """Return the end of a stored candle, which around outages may open off the grid."""
    phase = phase_of(listed or opened) if interval == "3d" else None
    candle = pl.DataFrame({"timestamp": [opened.astimezone(UTC)]}, schema={"timestamp": frames.UTC})
    end: datetime = candle.select(end_of(interval, phase)).item()
    return end.astimezone(UTC)


def computed_through(connection: psycopg.Connection, table: str, strategy_id: int) -> datetime | None:
    """Return the time up to which a ledger table is computed for a strategy version, UTC; None if it is not."""
    row = connection.execute(
        """SELECT complete_through FROM lineage
            WHERE table_name = %s AND symbol = '' AND "interval" = '' AND strategy_id = %s
            ORDER BY day DESC LIMIT 1""",
        (table, strategy_id),
    ).fetchone()
    return None if row is None else row[0].astimezone(UTC)


def versions(connection: psycopg.Connection) -> list[StoredVersion]:
    """Return every strategy version, by name and effective date."""
    rows = connection.execute(
        """SELECT id, strategy_name, version, symbol, "interval", effective_from,
                  least(effective_to,
                        lead(effective_from) OVER (PARTITION BY strategy_name ORDER BY effective_from))
             FROM strategies ORDER BY strategy_name, effective_from"""
    )
    return [StoredVersion(*row) for row in rows]


def choose_version(stored: Sequence[StoredVersion], name: str, version: int | None, today: date) -> StoredVersion:
    """Return the version with that number; without one, the last to become effective by ``today``, else the first.

    Raises WindowError if there is no such name (with the nearest) or number.
    """
    named = [item for item in stored if item.name == name]
    if not named:
        names = list(dict.fromkeys(item.name for item in stored))
        instead = _suggest(name, names, "strategy", "run `algobot apply`")
        raise WindowError(f"No strategy {name} is stored{instead}")
    if version is None:
        return next((item for item in reversed(named) if item.effective_from <= today), named[0])
    for item in named:
        if item.version == version:
            return item
    have = ", ".join(str(item.version) for item in named)
    raise WindowError(f"{name} has no version {version}. Stored versions: {have}.")


def nearest(wanted: str, known: Sequence[str]) -> str | None:
    """Return the name in ``known`` that is spelled most like ``wanted``; None if none is similar."""

    def likeness(item: str) -> tuple[float, float]:
        folded = difflib.SequenceMatcher(None, wanted.casefold(), item.casefold()).ratio()
        return folded, difflib.SequenceMatcher(None, wanted, item).ratio()

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= 0.5 else None


def _suggest(wanted: str, known: Sequence[str], kind: str, remedy: str) -> str:
    """Return the end of a "not stored" sentence: the nearest stored name, or the remedy."""
    if not known:
        return f", nor of any other {kind}: {remedy} first."
    near = nearest(wanted, known)
    if near is not None:
        return f"; the nearest stored {kind} is {near}."
    return f"; stored are {', '.join(known[:10])}{' and others' if len(known) > 10 else ''}."
