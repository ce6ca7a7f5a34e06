"""Read candles, indicators and signals of a range, together with the age of the newest data.

Rows come by COPY, in the same snapshot as their age. docs/performance.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.client.cache import FrameCache
from algobot_assets.client.cache_keys import CacheKeys, read_cache_keys
from algobot_assets.client.query_parts import NAMED, Schema, choose_versions, furthest_behind, range_condition
from algobot_assets.client.results import LatestSignal, QueryResult, When, time_range
from algobot_assets.errors import WindowError
from algobot_assets.schema import frames
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import LENGTH_MS
from algobot_assets.store import archive, catalogue
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out, select_columns

Columns = Sequence[str] | None
_INDICATORS: Schema = {name: pl.Float64() for name in ("ema", "rsi", "atr", "vwap")}


def read_by_candle(
    store: Store,
    cache: FrameCache,
    tables: tuple[str, ...],
    symbol: str,
    interval: str,
    start: When,
    end: When,
    columns: Columns,
) -> QueryResult:
    """Read a range of the first table, joined with the indicators if they are the second."""
    beside = _INDICATORS if len(tables) > 1 else {}
    known = {**schema_of(tables[0], generated=True), **beside}
    names = [*schema_of(tables[0]), *beside] if columns is None else columns
    schema = _picked(known, names, " with ".join(tables))
    timed = {**schema, "timestamp": frames.UTC}
    conditions, bounds = range_condition(sql.Identifier("t", "timestamp"), start, end)
    parameters = [symbol, interval, *bounds]
    join: sql.Composable = sql.SQL("")
    if beside:  # the range on both sides, without which every month of the other would be read
        also, _ = range_condition(sql.Identifier("i", "timestamp"), start, end)
        join = sql.SQL(
            ' LEFT JOIN indicators AS i ON i.symbol = %s AND i."interval" = %s{} AND i.timestamp = t.timestamp'
        ).format(also)
        parameters = [*parameters, *parameters]

    def stored(connection: psycopg.Connection, schema: Schema) -> pl.DataFrame:
        statement = sql.SQL(
            'SELECT {} FROM {} AS t{} WHERE t.symbol = %s AND t."interval" = %s{} ORDER BY t.timestamp'
        ).format(
            sql.SQL(", ").join(select_columns({n: schema[n]}, "i" if n in beside else "t") for n in schema),
            sql.Identifier(tables[0]),
            join,
            conditions,
        )
        return copy_out(connection, statement, parameters, schema)

    def work(connection: psycopg.Connection) -> QueryResult:
        archive.hold(connection, *tables)
        market, within = (tables, symbol, interval), time_range(start, end)
        keys = _cache_keys(cache, connection, *market, (0,), within)
        found = cache.get_newest(market, keys.newest)
        if found is None:
            found = tuple(catalogue.newest_candle(connection, table, symbol, interval) for table in tables)
            if found[0] is None:
                catalogue.require_market(connection, symbol, interval)
            cache.put_newest(market, keys.newest, found)
        query = (*market, within, tuple(schema))
        frame = cache.get(query, keys.rows) if cache.is_on else None
        if frame is None:
            frame = _archived(store, connection, tables, (symbol, interval), within, timed)
            if frame is None:
                frame = stored(connection, schema)
            else:
                frame = pl.concat([frame, stored(connection, timed)]).sort("timestamp").select(list(schema))
            cache.put(query, keys.rows, frame)
        ends = [candle[1] for candle in found if candle is not None]
        return QueryResult(frame, min(ends) if len(ends) == len(found) else None, keys.as_of)

    return store.retrying(work, f"Reading {tables[0]} of {symbol} {interval}")


def read_signals(
    store: Store,
    cache: FrameCache,
    symbol: str,
    interval: str,
    strategy: str | None,
    version: int | None,
    start: When,
    end: When,
) -> QueryResult:
    """Read the signals of a market, each with the name and version of its strategy."""
    schema = schema_of("signals")
    conditions, bounds = range_condition(sql.Identifier("s", "timestamp"), start, end)
    statement = sql.SQL(
        "SELECT {}, v.strategy_name, v.version "
        "FROM signals AS s JOIN strategies AS v ON v.id = s.strategy_id "
        'WHERE s.symbol = %s AND s."interval" = %s AND s.strategy_id = ANY(%s){} '
        "ORDER BY s.timestamp, s.strategy_id"
    ).format(select_columns(schema, "s"), conditions)

    def work(connection: psycopg.Connection) -> QueryResult:
        archive.hold(connection, "signals")
        as_of = catalogue.now(connection)
        wanted = choose_versions(connection, strategy, version, as_of)
        here = [item for item in wanted if (item.symbol, item.interval) == (symbol, interval)]
        if strategy is not None and not here:
            other = f"{wanted[0].symbol} {wanted[0].interval}"
            raise WindowError(f"{wanted[0]} trades {other}, not {symbol} {interval}. Read its signals of {other}.")
        if not here:
            catalogue.require_market(connection, symbol, interval)
        within, ids = time_range(start, end), {item.id: item for item in here}
        market = ("signals", symbol, interval, tuple(here))
        keys = _cache_keys(cache, connection, ("signals",), symbol, interval, list(ids), within)
        ends = cache.get_newest(market, keys.newest)
        if ends is None:
            ends = tuple(catalogue.newest_candle(connection, "signals", symbol, interval, i.id) for i in here)
            cache.put_newest(market, keys.newest, ends)
        newest = furthest_behind({item: found and found[1] for item, found in zip(here, ends, strict=True)}, as_of)
        frame = cache.get((*market, within), keys.rows) if cache.is_on else None
        if frame is not None:
            return QueryResult(frame, newest, as_of)
        frame = copy_out(connection, statement, [symbol, interval, list(ids), *bounds], {**schema, **NAMED})
        files = archive.files_of(connection, "signals", symbol, interval, *within, ids)
        if files:
            old = store.archive.rows(files, "signals", *within, list(schema))
            of = pl.col("strategy_id")
            named: dict[str, dict[int, str | int]] = {
                "strategy_name": {i: item.name for i, item in ids.items()},
                "version": {i: item.version for i, item in ids.items()},
            }
            old = old.with_columns(
                of.replace_strict(values, return_dtype=NAMED[name]).alias(name) for name, values in named.items()
            )
            frame = pl.concat([old, frame]).sort("timestamp", "strategy_id")
        cache.put((*market, within), keys.rows, frame)
        return QueryResult(frame, newest, as_of)

    return store.retrying(work, f"Reading signals of {symbol} {interval}")


def read_latest_signal(store: Store, strategy: str, version: int | None) -> LatestSignal:
    """Read the newest stored decision. Raise WindowError if there is none."""

    def work(connection: psycopg.Connection) -> LatestSignal:
        archive.hold(connection, "market_data", "signals")
        as_of = catalogue.now(connection)
        (item,) = choose_versions(connection, strategy, version, as_of)
        market = item.symbol, item.interval
        found = catalogue.newest_candle(connection, "signals", *market, item.id)
        if found is None:
            raise WindowError(f"No signal of {item} is stored: run `algobot refresh`.")
        opened, known_at = found
        at, strategies = (opened, opened + timedelta(microseconds=1)), [item.id]
        decided = archive.files_of(connection, "signals", *market, *at, strategies)
        if decided:  # a strategy or market that ended long ago
            candles = archive.files_of(connection, "market_data", *market, *at)
            signal = store.archive.rows(decided, "signals", *at, ["signal"]).item()
            price = store.archive.rows(candles, "market_data", *at, ["close"]).item()
            return LatestSignal(item.name, item.version, *market, signal, opened, known_at, price, as_of)
        decision = connection.execute(
            """SELECT s.signal, c.close
                 FROM signals AS s JOIN market_data AS c USING (symbol, "interval", timestamp)
                WHERE s.symbol = %s AND s."interval" = %s AND s.strategy_id = %s
                  AND s.timestamp = %s AND c.timestamp = %s""",
            (*market, item.id, opened, opened),
        ).fetchone()
        if decision is None:
            raise WindowError(
                f"The newest signal of {item} has no candle, whose row was changed by hand: run `algobot refresh`."
            )
        signal, price = decision
        return LatestSignal(item.name, item.version, *market, signal, opened, known_at, price, as_of)

    return store.retrying(work, f"Reading the latest signal of {strategy}")


def _cache_keys(
    cache: FrameCache,
    connection: psycopg.Connection,
    tables: tuple[str, ...],
    symbol: str,
    interval: str,
    strategies: Sequence[int],
    within: tuple[datetime | None, datetime | None],
) -> CacheKeys:
    """Return the keys of these rows; only the time if nothing is cached."""
    if not cache.is_on or interval not in LENGTH_MS:
        return CacheKeys(catalogue.now(connection), None, None)
    return read_cache_keys(connection, tables, symbol, interval, strategies, *within)


def _archived(
    store: Store,
    connection: psycopg.Connection,
    tables: tuple[str, ...],
    market: tuple[str, str],
    within: tuple[datetime | None, datetime | None],
    schema: Schema,
) -> pl.DataFrame | None:
    """Return the archived rows of the range; None if it touches no archived month."""
    files = archive.files_of(connection, tables[0], *market, *within)
    if not files:
        return None
    beside = [name for name in schema if len(tables) > 1 and name in _INDICATORS]
    rows = store.archive.rows(files, tables[0], *within, [name for name in schema if name not in beside])
    if beside:
        values = archive.files_of(connection, tables[1], *market, *within)
        rows = rows.join(
            store.archive.rows(values, tables[1], *within, ["timestamp", *beside]),
            on="timestamp",
            how="left",
            maintain_order="left",
        )
    return rows.select(list(schema))


def _picked(known: Schema, names: Sequence[str], table: str) -> dict[str, pl.DataType]:
    """Return the requested columns with their dtypes. Raise WindowError for an unknown column or an empty list."""
    for name in names:
        if name not in known:
            near = catalogue.nearest(name, list(known))
            raise WindowError(f"{table} has no column {name}" + (f"; the nearest is {near}." if near else "."))
    if not names:
        raise WindowError(f"No column of {table} was requested. Omit `columns` to read all of them.")
    return {name: known[name] for name in names}
