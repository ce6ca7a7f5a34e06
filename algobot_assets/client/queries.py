"""The SQL behind the client: rows of a range, together with the age of the newest data.

Candles, indicators and signals come by COPY, in one snapshot with their age; the ledger and the declared state
by connectorx, after their age has been read (docs/performance.md has the figures). What may be asked is the
client's affair; what is stored, the catalogue's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.client.cache import FrameCache
from algobot_assets.client.cache_keys import Fingerprint, fingerprint
from algobot_assets.client.results import Answer, LatestSignal, When, time_range
from algobot_assets.errors import WindowError
from algobot_assets.schema import frames
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import LENGTH_MS
from algobot_assets.store import archive, catalogue
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out, time_out
from algobot_assets.store.reader import query

Columns = Sequence[str] | None
Schema = Mapping[str, pl.DataType]
_NAMED: Schema = {"strategy_name": pl.String(), "version": pl.Int32()}
_INDICATORS: Schema = {name: pl.Float64() for name in ("ema", "rsi", "atr", "vwap")}
_TRADE: Schema = {"strategy_id": pl.Int64(), "entry_time": frames.UTC, "exit_time": frames.UTC}
#: Of each table of the ledger where its rows come from, their columns, and their order: first by time.
_LEDGER: dict[str, tuple[str, Schema, tuple[str, ...]]] = {
    "trade_history": (
        "trade_history AS t",
        {"id": pl.Int64(), **schema_of("trade_history")},
        ("t.exit_time", "t.entry_time"),
    ),
    "performance_metrics": (
        "(SELECT m.*, h.strategy_id, h.entry_time, h.exit_time "
        "FROM performance_metrics AS m JOIN trade_history AS h ON h.id = m.trade_id) AS t",
        {**schema_of("performance_metrics"), **_TRADE},
        ("t.exit_time", "t.entry_time"),
    ),
    "backtest_results": (
        "backtest_results AS t",
        schema_of("backtest_results"),
        ("(t.day::timestamp AT TIME ZONE 'UTC')", "v.strategy_name"),
    ),
}
_DECLARED: dict[str, tuple[str, Schema]] = {
    "configurations": ("configurations AS t", schema_of("configurations")),
    "strategies": ("strategies AS t", {"id": pl.Int64(), **schema_of("strategies")}),
    "risk_parameters": (
        "(SELECT r.*, v.strategy_name, v.version AS strategy_version "
        "FROM risk_parameters AS r JOIN strategies AS v ON v.id = r.strategy_id) AS t",
        {**schema_of("risk_parameters"), "strategy_name": pl.String(), "strategy_version": pl.Int32()},
    ),
}


def by_candle(
    store: Store,
    cache: FrameCache,
    tables: tuple[str, ...],
    symbol: str,
    interval: str,
    start: When,
    end: When,
    columns: Columns,
) -> Answer:
    """Rows of the first table, with the values of indicators where that is the second."""
    beside = _INDICATORS if len(tables) > 1 else {}
    known = {**schema_of(tables[0], generated=True), **beside}
    names = [*schema_of(tables[0]), *beside] if columns is None else columns
    schema = _picked(known, names, " with ".join(tables))
    timed = {**schema, "timestamp": frames.UTC}
    conditions, bounds = _within(sql.Identifier("t", "timestamp"), start, end)
    parameters = [symbol, interval, *bounds]
    join: sql.Composable = sql.SQL("")
    if beside:  # the range on both sides, without which every month of the other would be read
        also, _ = _within(sql.Identifier("i", "timestamp"), start, end)
        join = sql.SQL(
            ' LEFT JOIN indicators AS i ON i.symbol = %s AND i."interval" = %s{} AND i.timestamp = t.timestamp'
        ).format(also)
        parameters = [*parameters, *parameters]

    def stored(connection: psycopg.Connection, schema: Schema) -> pl.DataFrame:
        statement = sql.SQL(
            'SELECT {} FROM {} AS t{} WHERE t.symbol = %s AND t."interval" = %s{} ORDER BY t.timestamp'
        ).format(
            sql.SQL(", ").join(_selected({n: schema[n]}, "i" if n in beside else "t") for n in schema),
            sql.Identifier(tables[0]),
            join,
            conditions,
        )
        return copy_out(connection, statement, parameters, schema)

    def work(connection: psycopg.Connection) -> Answer:
        archive.hold(connection, *tables)
        market, within = (tables, symbol, interval), time_range(start, end)
        seen = _seen(cache, connection, *market, (0,), within)
        found = cache.newest(market, seen.newest)
        if found is None:
            found = tuple(catalogue.newest_candle(connection, table, symbol, interval) for table in tables)
            if found[0] is None:
                catalogue.require_market(connection, symbol, interval)
            cache.put_newest(market, seen.newest, found)
        question = (*market, within, tuple(schema))
        frame = cache.get(question, seen.rows) if cache.is_on else None
        if frame is None:
            frame = _archived(store, connection, tables, (symbol, interval), within, timed)
            if frame is None:
                frame = stored(connection, schema)
            else:
                frame = pl.concat([frame, stored(connection, timed)]).sort("timestamp").select(list(schema))
            cache.put(question, seen.rows, frame)
        return Answer(frame, None if None in found else min(ends for _, ends in found), seen.as_of)

    return store.retrying(work, f"Reading {tables[0]} of {symbol} {interval}")


def _seen(
    cache: FrameCache,
    connection: psycopg.Connection,
    tables: tuple[str, ...],
    symbol: str,
    interval: str,
    strategies: Sequence[int],
    within: tuple[datetime | None, datetime | None],
) -> Fingerprint:
    """What the rows are known by; without a cache only the time."""
    if not cache.is_on or interval not in LENGTH_MS:
        return Fingerprint(catalogue.now(connection), None, None)
    return fingerprint(connection, tables, symbol, interval, strategies, *within)


def _archived(
    store: Store,
    connection: psycopg.Connection,
    tables: tuple[str, ...],
    market: tuple[str, str],
    within: tuple[datetime | None, datetime | None],
    schema: Schema,
) -> pl.DataFrame | None:
    """The archived rows of the range as ``by_candle`` gives them; None where it touches no archived month."""
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


def signals(
    store: Store,
    cache: FrameCache,
    symbol: str,
    interval: str,
    strategy: str | None,
    version: int | None,
    start: When,
    end: When,
) -> Answer:
    """Signals of a market with their strategy."""
    schema = schema_of("signals")
    conditions, bounds = _within(sql.Identifier("s", "timestamp"), start, end)
    statement = sql.SQL(
        "SELECT {}, v.strategy_name, v.version "
        "FROM signals AS s JOIN strategies AS v ON v.id = s.strategy_id "
        'WHERE s.symbol = %s AND s."interval" = %s AND s.strategy_id = ANY(%s){} '
        "ORDER BY s.timestamp, s.strategy_id"
    ).format(_selected(schema, "s"), conditions)

    def work(connection: psycopg.Connection) -> Answer:
        archive.hold(connection, "signals")
        as_of = catalogue.now(connection)
        wanted = _wanted(connection, strategy, version, as_of)
        here = [item for item in wanted if (item.symbol, item.interval) == (symbol, interval)]
        if strategy is not None and not here:
            other = f"{wanted[0].symbol} {wanted[0].interval}"
            raise WindowError(f"{wanted[0]} decides on {other}, not on {symbol} {interval}; ask for {other}.")
        if not here:
            catalogue.require_market(connection, symbol, interval)
        within, ids = time_range(start, end), {item.id: item for item in here}
        market = ("signals", symbol, interval, tuple(here))
        seen = _seen(cache, connection, ("signals",), symbol, interval, list(ids), within)
        ends = cache.newest(market, seen.newest)
        if ends is None:
            ends = tuple(catalogue.newest_candle(connection, "signals", symbol, interval, i.id) for i in here)
            cache.put_newest(market, seen.newest, ends)
        newest = _furthest_behind({item: found and found[1] for item, found in zip(here, ends, strict=True)}, as_of)
        frame = cache.get((*market, within), seen.rows) if cache.is_on else None
        if frame is not None:
            return Answer(frame, newest, as_of)
        frame = copy_out(connection, statement, [symbol, interval, list(ids), *bounds], {**schema, **_NAMED})
        files = archive.files_of(connection, "signals", symbol, interval, *within, ids)
        if files:
            old = store.archive.rows(files, "signals", *within, list(schema))
            of = pl.col("strategy_id")
            named = {"strategy_name": {i: item.name for i, item in ids.items()}}
            named |= {"version": {i: item.version for i, item in ids.items()}}
            old = old.with_columns(
                of.replace_strict(values, return_dtype=_NAMED[name]).alias(name) for name, values in named.items()
            )
            frame = pl.concat([old, frame]).sort("timestamp", "strategy_id")
        cache.put((*market, within), seen.rows, frame)
        return Answer(frame, newest, as_of)

    return store.retrying(work, f"Reading signals of {symbol} {interval}")


def latest_signal(store: Store, strategy: str, version: int | None) -> LatestSignal:
    """The newest stored decision; WindowError where there is none."""

    def work(connection: psycopg.Connection) -> LatestSignal:
        archive.hold(connection, "market_data", "signals")
        as_of = catalogue.now(connection)
        (item,) = _wanted(connection, strategy, version, as_of)
        market = item.symbol, item.interval
        found = catalogue.newest_candle(connection, "signals", *market, item.id)
        if found is None:
            raise WindowError(f"No signal of {item} is stored: materialise signals ({' '.join(market)}) first.")
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


def of_ledger(store: Store, table: str, strategy: str | None, version: int | None, start: When, end: When) -> Answer:
    """Rows of a table of the ledger with their strategy, in order of time."""
    source, schema, order = _LEDGER[table]
    conditions, bounds = _within(sql.SQL(order[0]), start, end)

    def freshness(
        connection: psycopg.Connection,
    ) -> tuple[datetime, list[StoredVersion], datetime | None]:
        as_of = catalogue.now(connection)
        wanted = _wanted(connection, strategy, version, as_of)
        ends = {item: catalogue.computed_through(connection, table, item.id) for item in wanted}
        return as_of, wanted, _furthest_behind(ends, as_of)

    # asked before the rows are: they may be newer than the age says, never older
    as_of, wanted, newest = store.retrying(freshness, f"Reading how far {table} is computed")
    statement = sql.SQL(
        "SELECT {}, v.strategy_name, v.version FROM {} JOIN strategies AS v ON v.id = t.strategy_id "
        "WHERE t.strategy_id = ANY(%s){} ORDER BY {}, t.strategy_id"
    ).format(
        sql.SQL(", ").join(sql.Identifier("t", name) for name in schema),
        sql.SQL(source),
        conditions,
        sql.SQL(", ".join(order)),
    )
    frame = query(store, statement, [[item.id for item in wanted], *bounds], {**schema, **_NAMED})
    return Answer(frame, newest, as_of)


def declared(store: Store, table: str) -> Answer:
    """All rows of a reference table; its newest data is the version that was stored or corrected last."""
    source, schema = _DECLARED[table]
    stamps = sql.SQL("SELECT now(), max(updated_at) FROM {}").format(sql.Identifier(table))
    as_of, newest = store.retrying(
        lambda connection: connection.execute(stamps).fetchone(), f"Reading when {table} was stored"
    )
    statement = sql.SQL("SELECT {} FROM {} ORDER BY t.effective_from, t.id").format(
        sql.SQL(", ").join(sql.Identifier("t", name) for name in schema), sql.SQL(source)
    )
    return Answer(query(store, statement, schema=schema), newest and newest.astimezone(UTC), as_of.astimezone(UTC))


def _wanted(
    connection: psycopg.Connection, strategy: str | None, version: int | None, as_of: datetime
) -> list[StoredVersion]:
    """The strategy version that is asked for, or all."""
    stored = catalogue.versions(connection)
    if strategy is not None:
        return [catalogue.choose(stored, strategy, version, as_of.date())]
    if version is not None:
        raise WindowError(f"Version {version} of which strategy? Name the strategy too.")
    return stored


def _furthest_behind(ends: Mapping[StoredVersion, datetime | None], as_of: datetime) -> datetime | None:
    """The least of those in force, which are still computed; if none is, the greatest of the others."""
    stored = {item: end for item, end in ends.items() if end is not None}
    in_force = [end for item, end in stored.items() if item.until is None or item.until > as_of.date()]
    return min(in_force) if in_force else max(stored.values(), default=None)


def _within(at: sql.Composable, start: When, end: When) -> tuple[sql.Composable, list[Any]]:
    """The conditions that keep ``at`` in [start, end), each led by AND, and their parameters."""
    given = {s: bound for s, bound in zip((">=", "<"), time_range(start, end), strict=True) if bound is not None}
    return sql.Composed([sql.SQL(f" AND {{}} {s} %s").format(at) for s in given]), list(given.values())


def _picked(known: Schema, names: Sequence[str], table: str) -> dict[str, pl.DataType]:
    """The asked columns with their dtypes; WindowError where there is no such column, or none is asked for."""
    for name in names:
        if name not in known:
            near = catalogue.nearest(name, list(known))
            raise WindowError(f"{table} has no column {name}" + (f"; the nearest is {near}." if near else "."))
    if not names:
        raise WindowError(f"No column of {table} was asked for; leave `columns` out for all.")
    return {name: known[name] for name in names}


def _selected(schema: Schema, of: str) -> sql.Composable:
    """The columns of the table with alias ``of``, as copy_out wants them."""
    return sql.SQL(", ").join(
        time_out(name, of) if dtype == frames.UTC else sql.Identifier(of, name) for name, dtype in schema.items()
    )
