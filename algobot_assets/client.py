"""The read-only client: what bots, notebooks and reports use to see the tables as Polars frames.

Questions to the tables belong here, each answered together with the age of the newest data. Writing, and running
assets, do not; the client needs no Dagster. Candles, indicators and signals come by COPY, in one snapshot with
their age; the ledger and the declared state by connectorx (docs/performance.md has the figures).

    with connect() as client:
        answer = client.candles("BTCUSDT", "1h", "2024-01-01", "2024-02-01")
        answer.frame      # pl.DataFrame
        answer.age        # how old the newest stored candle of BTCUSDT 1h is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.answers import Answer, LatestSignal, When, instant, time_range
from algobot_assets.declared.versions import effective, lifetimes
from algobot_assets.errors import WindowError
from algobot_assets.schema import frames
from algobot_assets.schema.frames import schema_of
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_out, time_out
from algobot_assets.store.reader import query

Schema = Mapping[str, pl.DataType]
_NAMED: Schema = {"strategy_name": pl.String(), "version": pl.Int32()}
_INDICATORS: Schema = {name: pl.Float64() for name in ("ema", "rsi", "atr", "vwap")}


class _ReadOnlyStore(Store):
    """A store whose transactions are READ ONLY and each see one snapshot."""

    def _configure(self, connection: psycopg.Connection) -> None:
        super()._configure(connection)
        connection.execute("SELECT set_config('default_transaction_read_only', 'on', false)")
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    @cached_property
    def connectorx_url(self) -> str:
        """Proved once: every query begins on a pooled connection, which finds out when the server is gone."""
        return super().connectorx_url


def connect(settings: Settings | None = None, *, database_url: str | None = None) -> Client:
    """A client of the settings' database, default that of the environment; ``database_url`` names another.

    Starts the embedded server where it is used and not running. Raises SettingsError for a URL that is none,
    StoreError where the database cannot be reached.
    """
    if database_url is not None:
        given = {name: getattr(settings, name) for name in settings.model_fields_set} if settings else {}
        settings = Settings(**{**given, "database_url": database_url})
    return Client(settings)


class Client:
    """Read-only access to the tables, safe to share between threads; made by ``connect``, closed by ``with``.

    ``start`` and ``end`` are datetimes, dates or ISO 8601 texts, UTC where they name no zone; ranges are half-open
    and None leaves a side open. A strategy's name stands for its version in force (of a retired one the last, of a
    future one the first); ``version`` names another. Columns have the dtypes of schema/frames.py. Raises
    WindowError for a market, strategy, column or time that cannot be, StoreError where the database fails; a known
    market or strategy without data gives no rows.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._store = _ReadOnlyStore.open(settings, "client")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client of {self._store.database!r}"

    def close(self) -> None:
        """Give the connections back."""
        self._store.close()

    # --- candle by candle -------------------------------------------------------------------------------

    def candles(
        self,
        symbol: str,
        interval: str,
        start: When | None = None,
        end: When | None = None,
        columns: Sequence[str] | None = None,
    ) -> Answer:
        """Candles that open in [start, end), ascending, as Binance published them.

        ``columns`` default to those of market_data without the generated id, created_at and updated_at.
        """
        return self._by_candle(("market_data",), symbol, interval, start, end, columns)

    def indicators(
        self,
        symbol: str,
        interval: str,
        start: When | None = None,
        end: When | None = None,
        columns: Sequence[str] | None = None,
    ) -> Answer:
        """Indicators of the candles that open in [start, end), ascending; null while warming."""
        return self._by_candle(("indicators",), symbol, interval, start, end, columns)

    def candles_with_indicators(
        self,
        symbol: str,
        interval: str,
        start: When | None = None,
        end: When | None = None,
        columns: Sequence[str] | None = None,
    ) -> Answer:
        """``candles`` with ema, rsi, atr and vwap beside; null also where no indicators are stored."""
        return self._by_candle(("market_data", "indicators"), symbol, interval, start, end, columns)

    def signals(
        self,
        symbol: str,
        interval: str,
        start: When | None = None,
        end: When | None = None,
        strategy: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """Signals of the candles that open in [start, end), ascending: of one strategy version, or of all.

        Columns of signals, strategy_name, version. A version has signals before its effective date too; the ledger
        ignores those.
        """
        schema = schema_of("signals")
        conditions, bounds = _within(sql.Identifier("s", "timestamp"), start, end)
        statement = sql.SQL(
            "SELECT {}, v.strategy_name, v.version FROM signals AS s JOIN strategies AS v ON v.id = s.strategy_id "
            'WHERE s.symbol = %s AND s."interval" = %s AND s.strategy_id = ANY(%s){} '
            "ORDER BY s.timestamp, s.strategy_id"
        ).format(_selected(schema, "s"), conditions)

        def work(connection: psycopg.Connection) -> Answer:
            as_of = catalogue.now(connection)
            wanted = _wanted(connection, strategy, version, as_of)
            here = [item for item in wanted if (item.symbol, item.interval) == (symbol, interval)]
            if strategy is not None and not here:
                other = f"{wanted[0].symbol} {wanted[0].interval}"
                raise WindowError(f"{wanted[0]} decides on {other}, not on {symbol} {interval}; ask for {other}.")
            if not here:
                catalogue.require_market(connection, symbol, interval)
            ends = {i: catalogue.newest_candle(connection, "signals", symbol, interval, i.id) for i in here}
            newest = _furthest_behind({item: found and found[1] for item, found in ends.items()}, as_of)
            parameters = [symbol, interval, [item.id for item in here], *bounds]
            return Answer(copy_out(connection, statement, parameters, {**schema, **_NAMED}), newest, as_of)

        return self._store.retrying(work, f"Reading signals of {symbol} {interval}")

    def latest_signal(self, strategy: str, version: int | None = None) -> LatestSignal:
        """The newest decision of a strategy, with its age and whether it is stale."""

        def work(connection: psycopg.Connection) -> LatestSignal:
            as_of = catalogue.now(connection)
            (item,) = _wanted(connection, strategy, version, as_of)
            market = item.symbol, item.interval
            found = catalogue.newest_candle(connection, "signals", *market, item.id)
            if found is None:
                raise WindowError(f"No signal of {item} is stored: materialise signals ({' '.join(market)}) first.")
            opened, known_at = found
            signal, price = connection.execute(
                """SELECT s.signal, c.close
                     FROM signals AS s JOIN market_data AS c USING (symbol, "interval", timestamp)
                    WHERE s.symbol = %s AND s."interval" = %s AND s.strategy_id = %s
                      AND s.timestamp = %s AND c.timestamp = %s""",
                (*market, item.id, opened, opened),
            ).fetchone()
            return LatestSignal(item.name, item.version, *market, signal, opened, known_at, price, as_of)

        return self._store.retrying(work, f"Reading the latest signal of {strategy}")

    # --- the ledger -------------------------------------------------------------------------------------

    def trades(
        self,
        strategy: str | None = None,
        start: When | None = None,
        end: When | None = None,
        version: int | None = None,
    ) -> Answer:
        """Trades that closed (exit_time) in [start, end), in that order: of one strategy version, or of all.

        id, columns of trade_history, strategy_name, version.
        """
        schema = {"id": pl.Int64(), **schema_of("trade_history")}
        order = "t.exit_time", "t.entry_time"
        return self._of_ledger("trade_history", "trade_history AS t", schema, order, strategy, version, start, end)

    def metrics(
        self,
        strategy: str | None = None,
        start: When | None = None,
        end: When | None = None,
        version: int | None = None,
    ) -> Answer:
        """The figures as of each trade that closed in [start, end), in that order.

        Columns of performance_metrics; strategy_id, entry_time and exit_time of the trade; strategy_name, version.
        """
        trade = {name: schema_of("trade_history")[name] for name in ("strategy_id", "entry_time", "exit_time")}
        source = (
            "(SELECT m.*, h.strategy_id, h.entry_time, h.exit_time "
            "FROM performance_metrics AS m JOIN trade_history AS h ON h.id = m.trade_id) AS t"
        )
        schema = {**schema_of("performance_metrics"), **trade}
        order = "t.exit_time", "t.entry_time"
        return self._of_ledger("performance_metrics", source, schema, order, strategy, version, start, end)

    def results(
        self,
        strategy: str | None = None,
        start: When | None = None,
        end: When | None = None,
        version: int | None = None,
    ) -> Answer:
        """The backtest as of the end of each day that begins in [start, end), ascending.

        Columns of backtest_results, strategy_name, version.
        """
        order = "(t.day::timestamp AT TIME ZONE 'UTC')", "v.strategy_name"
        schema = schema_of("backtest_results")
        return self._of_ledger("backtest_results", "backtest_results AS t", schema, order, strategy, version, start, end)

    # --- declared state and catalogue -------------------------------------------------------------------

    def configuration(self, day: When | None = None) -> Answer:
        """The configurations in force on ``day``, default today: columns of configurations, by name."""
        on = instant(day, "day")
        stored = self._declared("configurations", "SELECT t.* FROM configurations AS t", schema_of("configurations"))
        return Answer(effective(stored.frame, (on or stored.as_of).date()), stored.newest, stored.as_of)

    def strategies(self) -> Answer:
        """Every strategy version, by name and effective date: id, columns of strategies, and ``until`` (Date), the
        first day on which it no longer holds, null while none is known."""
        schema = {"id": pl.Int64(), **schema_of("strategies")}
        stored = self._declared("strategies", "SELECT t.* FROM strategies AS t", schema)
        return Answer(lifetimes(stored.frame), stored.newest, stored.as_of)

    def risk_parameters(self) -> Answer:
        """Every version of the risk parameters, by strategy version and effective date: columns of
        risk_parameters, strategy_name, strategy_version, and ``until`` as in ``strategies``."""
        stored = self._declared(
            "risk_parameters",
            "SELECT t.*, v.strategy_name, v.version AS strategy_version "
            "FROM risk_parameters AS t JOIN strategies AS v ON v.id = t.strategy_id",
            {**schema_of("risk_parameters"), "strategy_name": pl.String(), "strategy_version": pl.Int32()},
        )
        return Answer(lifetimes(stored.frame), stored.newest, stored.as_of)

    def markets(self) -> Answer:
        """What is stored, a row per market: symbol, interval; first_candle and last_candle (opens), newest (end of
        the last) and its age (Duration); candles and days (Int64); complete_through, up to which no day since the
        first is missing or unfinished. Times are UTC. Read from lineage, nothing is counted."""
        as_of, stored = self._store.retrying(
            lambda connection: (catalogue.now(connection), catalogue.markets(connection)), "Reading the markets"
        )
        schema = {
            **dict.fromkeys(("symbol", "interval"), pl.String()),
            **dict.fromkeys(("first_candle", "last_candle", "newest"), frames.UTC),
            **dict.fromkeys(("candles", "days"), pl.Int64()),
            "complete_through": frames.UTC,
        }
        frame = pl.DataFrame([asdict(market) for market in stored], schema=schema)
        age = (pl.lit(as_of, frames.UTC) - pl.col("newest")).alias("age")
        newest = max((market.newest for market in stored if market.newest is not None), default=None)
        return Answer(frame.insert_column(5, frame.select(age)["age"]), newest, as_of)

    # --- how they are read ------------------------------------------------------------------------------

    def _by_candle(
        self,
        tables: tuple[str, ...],
        symbol: str,
        interval: str,
        start: When | None,
        end: When | None,
        columns: Sequence[str] | None,
    ) -> Answer:
        """Rows of the first table, with the values of indicators where that is the second."""
        beside = _INDICATORS if len(tables) > 1 else {}
        known = {**schema_of(tables[0], generated=True), **beside}
        names = [*schema_of(tables[0]), *beside] if columns is None else columns
        schema = _picked(known, names, " with ".join(tables))
        conditions, bounds = _within(sql.Identifier("t", "timestamp"), start, end)
        join = 'LEFT JOIN indicators AS i USING (symbol, "interval", timestamp)' if beside else ""
        statement = sql.SQL(
            'SELECT {} FROM {} AS t {} WHERE t.symbol = %s AND t."interval" = %s{} ORDER BY t.timestamp'
        ).format(
            sql.SQL(", ").join(_selected({name: dtype}, "i" if name in beside else "t") for name, dtype in schema.items()),
            sql.Identifier(tables[0]),
            sql.SQL(join),
            conditions,
        )

        def work(connection: psycopg.Connection) -> Answer:
            as_of = catalogue.now(connection)
            found = [catalogue.newest_candle(connection, table, symbol, interval) for table in tables]
            if found[0] is None:
                catalogue.require_market(connection, symbol, interval)
            frame = copy_out(connection, statement, [symbol, interval, *bounds], schema)
            return Answer(frame, None if None in found else min(ends for _, ends in found), as_of)

        return self._store.retrying(work, f"Reading {tables[0]} of {symbol} {interval}")

    def _of_ledger(
        self,
        table: str,
        source: str,
        schema: Schema,
        order: tuple[str, str],
        strategy: str | None,
        version: int | None,
        start: When | None,
        end: When | None,
    ) -> Answer:
        """Rows of a table of the ledger with their strategy; the first of ``order`` places a row in time."""
        conditions, bounds = _within(sql.SQL(order[0]), start, end)

        def freshness(connection: psycopg.Connection) -> tuple[datetime, list[StoredVersion], datetime | None]:
            as_of = catalogue.now(connection)
            wanted = _wanted(connection, strategy, version, as_of)
            ends = {item: catalogue.computed_through(connection, table, item.id) for item in wanted}
            return as_of, wanted, _furthest_behind(ends, as_of)

        # asked before the rows are: they may be newer than the age says, never older
        as_of, wanted, newest = self._store.retrying(freshness, f"Reading how far {table} is computed")
        statement = sql.SQL(
            "SELECT {}, v.strategy_name, v.version FROM {} JOIN strategies AS v ON v.id = t.strategy_id "
            "WHERE t.strategy_id = ANY(%s){} ORDER BY {}, t.strategy_id"
        ).format(
            sql.SQL(", ").join(sql.Identifier("t", name) for name in schema),
            sql.SQL(source),
            conditions,
            sql.SQL(", ".join(order)),
        )
        frame = query(self._store, statement, [[item.id for item in wanted], *bounds], {**schema, **_NAMED})
        return Answer(frame, newest, as_of)

    def _declared(self, table: str, statement: str, schema: Schema) -> Answer:
        """Rows of a reference table; its newest data is the version that was stored or corrected last."""
        stamps = sql.SQL("SELECT now(), max(updated_at) FROM {}").format(sql.Identifier(table))
        as_of, newest = self._store.retrying(
            lambda connection: connection.execute(stamps).fetchone(), f"Reading when {table} was stored"
        )
        frame = query(self._store, f"{statement} ORDER BY t.effective_from, t.id", schema=schema).select(*schema)
        return Answer(frame, newest and newest.astimezone(UTC), as_of.astimezone(UTC))


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


def _within(at: sql.Composable, start: When | None, end: When | None) -> tuple[sql.Composable, list[Any]]:
    """The conditions that keep ``at`` in [start, end), each led by AND, and their parameters."""
    given = [(sign, bound) for sign, bound in zip((">=", "<"), time_range(start, end), strict=True) if bound is not None]
    conditions = [sql.SQL(" AND {} {} %s").format(at, sql.SQL(sign)) for sign, _ in given]
    return sql.Composed(conditions), [bound for _, bound in given]


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
