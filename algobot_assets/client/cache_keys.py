"""Cache keys: one string per query that changes whenever the rows behind it change.

They come from lineage in one statement of about a millisecond, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql

from algobot_assets.schema.intervals import LENGTH_MS


@dataclass(frozen=True)
class CacheKeys:
    """Keys of a query: ``rows`` for its rows, ``newest`` for the newest day of each table, ``as_of`` the database's
    clock. A key is None if rows were changed by hand since lineage recorded them, so that nothing can be cached."""

    as_of: datetime
    rows: str | None
    newest: str | None


def read_cache_keys(
    connection: psycopg.Connection,
    tables: Sequence[str],
    symbol: str,
    interval: str,
    strategies: Sequence[int],
    lo: datetime | None,
    hi: datetime | None,
) -> CacheKeys:
    """Read the keys of the rows of monthly ``tables`` whose candles open in [lo, hi); None leaves a side open.

    Digests cover what was written, and when. Rows are counted too, because lineage does not know rows inserted by
    hand.
    """
    first = lo.date() if lo else date.min
    # a candle belongs to the day on which it ends
    reach = timedelta(days=1 if (LENGTH_MS[interval] or 0) in range(1, 86_400_001) else 31)
    last = hi.date() + reach if hi and hi.date() < date.max - reach else date.max
    conditions, bounds = [], []
    for moment, sign in ((lo, ">="), (hi, "<")):
        if moment is not None:
            conditions.append(sql.SQL(f' AND "timestamp" {sign} %s'))
            bounds.append(moment)
    counts = [
        sql.SQL('(SELECT count(*) FROM {} WHERE symbol = %s AND "interval" = %s{}{})').format(
            sql.Identifier(table),
            sql.SQL(" AND strategy_id = ANY(%s)" if table == "signals" else ""),
            sql.Composed(conditions),
        )
        for table in tables
    ]
    counted = [
        item
        for table in tables
        for item in (symbol, interval, *([list(strategies)] if table == "signals" else []), *bounds)
    ]
    market = [list(tables), symbol, interval, list(strategies)]
    (row,) = connection.execute(
        _STATEMENT.format(counts=sql.SQL(", ").join(counts)),
        [*market, first, last, *market, first, last, *counted, *market],
    ).fetchall()
    as_of, rows, dirty, newest, dirty_newest, *numbers = row
    return CacheKeys(
        as_of.astimezone(UTC),
        None if dirty else f"{rows} {numbers}",
        None if dirty_newest or newest is None else newest,
    )


_STATEMENT = sql.SQL(
    """
SELECT now(),
       (SELECT md5(string_agg(concat_ws(' ', table_name, strategy_id, day, output_digest, written_at), ','
                              ORDER BY table_name, strategy_id, day))
          FROM lineage WHERE table_name = ANY(%s) AND symbol = %s AND "interval" = %s AND strategy_id = ANY(%s)
           AND day BETWEEN %s AND %s),
       EXISTS (SELECT FROM dirty_days WHERE table_name = ANY(%s) AND symbol = %s AND "interval" = %s
                  AND strategy_id = ANY(%s) AND day BETWEEN %s AND %s),
       newest.text, newest.dirty, {counts}
  FROM (SELECT string_agg(concat_ws(' ', d.table_name, d.strategy_id, d.day, d.output_digest, d.written_at), ','
                          ORDER BY d.table_name, d.strategy_id) AS text,
               coalesce(bool_or(d.dirty), false) AS dirty
          FROM (SELECT unnest(%s::text[]) AS name) AS t
         CROSS JOIN (SELECT %s::text AS symbol, %s::text AS "interval") AS m
         CROSS JOIN (SELECT unnest(%s::bigint[]) AS id) AS s
         CROSS JOIN LATERAL (
               SELECT l.*, EXISTS (SELECT FROM dirty_days AS d WHERE (d.table_name, d.symbol, d."interval",
                              d.strategy_id, d.day) = (l.table_name, l.symbol, l."interval", l.strategy_id, l.day))
                      AS dirty
                 FROM lineage AS l
                WHERE l.table_name = t.name AND l.symbol = m.symbol AND l."interval" = m."interval"
                  AND l.strategy_id = s.id AND l.rows > 0 ORDER BY l.day DESC LIMIT 1) AS d) AS newest
"""
)
