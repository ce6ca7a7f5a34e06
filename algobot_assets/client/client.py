"""The read-only client, which gives bots, notebooks and reports the tables as Polars frames.

Every result carries the age of the newest data. The client writes nothing, runs nothing and needs no Dagster.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import polars as pl
from pydantic import SecretStr

from algobot_assets.client import ledger_queries, queries
from algobot_assets.client.cache import CacheInfo, FrameCache
from algobot_assets.client.queries import Columns
from algobot_assets.client.results import LatestSignal, QueryResult, When, instant
from algobot_assets.declared.versions import effective, lifetimes
from algobot_assets.schema import frames
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database
from algobot_assets.store.server.choose import data_database


def connect(
    settings: Settings | None = None, *, database_url: str | None = None, cache_mb: int | None = None
) -> Client:
    """Open a client of the database that the environment or ``settings`` name, or of ``database_url``.

    ``cache_mb``: megabytes of frames kept for repeated queries; 0 keeps none; default ALGOBOT_CLIENT_CACHE_MB.

    Starts the embedded server if it is in use and not running, and creates nothing in it. Raises SettingsError for an
    invalid URL, StoreError if the database does not exist or cannot be reached.

    >>> with connect() as client:
    ...     result = client.candles("BTCUSDT", "1h", "2024-02-01", "2024-02-02", columns=["timestamp", "close"])
    >>> result.frame.head(2)
    shape: (2, 2)
    ┌─────────────────────────┬────────────────┐
    │ timestamp               ┆ close          │
    │ ---                     ┆ ---            │
    │ datetime[μs, UTC]       ┆ decimal[20,8]  │
    ╞═════════════════════════╪════════════════╡
    │ 2024-02-01 00:00:00 UTC ┆ 29678.33000000 │
    │ 2024-02-01 01:00:00 UTC ┆ 29784.31000000 │
    └─────────────────────────┴────────────────┘
    """
    settings = settings or Settings()
    if database_url is not None:
        alone = {"database_url": SecretStr(database_url), "direct_url": None}
        database = Database.from_url(settings.model_copy(update=alone))
    else:
        database = data_database(settings, create=False)
    megabytes = settings.client_cache_mb if cache_mb is None else cache_mb
    return Client(database, settings.archive_place, megabytes)


class Client:
    """Read-only access to the tables. Made by ``connect``, closed by ``with``; threads can share one client.

    ``start`` and ``end`` are datetimes, dates or ISO 8601 texts, UTC unless they name a zone. Ranges are half-open;
    None leaves a side open. A strategy's name stands for its version in force (its last if it is retired, its first
    if it has not begun); ``version`` names another. Columns have the dtypes of schema/frames.py.

    Raises WindowError for an unknown market, strategy or column and for an invalid time, StoreError if the database
    fails. A known market or strategy without data gives no rows.

    Repeated queries of candles, indicators and signals come from a cache as long as the database says that their rows
    have not changed (see ``cache_info``). The age of the data is always read.
    """

    def __init__(self, database: Database, archive: str | None = None, cache_mb: int = 0) -> None:
        database.check()  # fails at once, where the pool would retry for seconds
        self._store = Store(database, "client", read_only=True, archive=archive)
        self._cache = FrameCache(cache_mb * 1_000_000)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client of {self._store.database!r}"

    def close(self) -> None:
        """Close all connections."""
        self._store.close()

    @property
    def cache_info(self) -> CacheInfo:
        """Statistics of the cache: hits, misses, frames and bytes held."""
        return self._cache.info()

    # --- candle by candle -------------------------------------------------------------------------------

    def candles(
        self, symbol: str, interval: str, start: When = None, end: When = None, columns: Columns = None
    ) -> QueryResult:
        """Read the candles that open in [start, end), ascending, as Binance published them.

        ``columns`` defaults to those of market_data without the generated id, created_at and updated_at.

        >>> result = client.candles("BTCUSDT", "1h", "2024-02-01", columns=["close"])
        >>> result.frame["close"][0]
        Decimal('29678.33000000')
        """
        return queries.read_by_candle(self._store, self._cache, ("market_data",), symbol, interval, start, end, columns)

    def indicators(
        self, symbol: str, interval: str, start: When = None, end: When = None, columns: Columns = None
    ) -> QueryResult:
        """Read the indicators of the candles that open in [start, end), ascending; null while they warm up.

        >>> client.indicators("BTCUSDT", "1h", "2024-02-01", "2024-02-01T02:00").frame.columns
        ['market_data_id', 'symbol', 'interval', 'timestamp', 'ema', 'rsi', 'atr', 'vwap']
        """
        return queries.read_by_candle(self._store, self._cache, ("indicators",), symbol, interval, start, end, columns)

    def candles_with_indicators(
        self, symbol: str, interval: str, start: When = None, end: When = None, columns: Columns = None
    ) -> QueryResult:
        """Read ``candles`` with their ema, rsi, atr and vwap; null also where no indicators are stored.

        >>> frame = client.candles_with_indicators("BTCUSDT", "1h", columns=["timestamp", "close", "ema"]).frame
        >>> frame.columns
        ['timestamp', 'close', 'ema']
        """
        both = ("market_data", "indicators")
        return queries.read_by_candle(self._store, self._cache, both, symbol, interval, start, end, columns)

    def signals(
        self,
        symbol: str,
        interval: str,
        start: When = None,
        end: When = None,
        strategy: str | None = None,
        version: int | None = None,
    ) -> QueryResult:
        """Read the signals of the candles that open in [start, end), ascending: of one strategy version, or of all.

        Columns: those of signals, strategy_name, version. A version also has signals before its effective date; the
        ledger ignores those.

        >>> frame = client.signals("BTCUSDT", "1h", strategy="cross", version=1).frame
        >>> sorted(frame["signal"].unique())
        [-1, 0, 1]
        """
        return queries.read_signals(self._store, self._cache, symbol, interval, strategy, version, start, end)

    def latest_signal(self, strategy: str, version: int | None = None) -> LatestSignal:
        """Read the newest decision of a strategy, with its age and whether it is stale.

        >>> latest = client.latest_signal("cross")
        >>> latest.signal in (1, -1, 0), latest.stale
        (True, True)
        """
        return queries.read_latest_signal(self._store, strategy, version)

    # --- the ledger -------------------------------------------------------------------------------------

    def trades(
        self, strategy: str | None = None, start: When = None, end: When = None, version: int | None = None
    ) -> QueryResult:
        """Read the trades that closed (exit_time) in [start, end), in that order: of one strategy version, or of all.

        Columns: id, those of trade_history, strategy_name, version.

        >>> trades = client.trades("cross", version=1).frame
        >>> trades.select("position_type", "exit_reason").row(0)
        ('long', 'signal')
        """
        return ledger_queries.read_ledger(self._store, "trade_history", strategy, version, start, end)

    def metrics(
        self, strategy: str | None = None, start: When = None, end: When = None, version: int | None = None
    ) -> QueryResult:
        """Read the figures as of each trade that closed in [start, end), in that order.

        Columns: those of performance_metrics, strategy_id, entry_time and exit_time of the trade, strategy_name,
        version.

        >>> client.metrics("cross", version=1).frame.height == client.trades("cross", version=1).frame.height
        True
        """
        return ledger_queries.read_ledger(self._store, "performance_metrics", strategy, version, start, end)

    def results(
        self, strategy: str | None = None, start: When = None, end: When = None, version: int | None = None
    ) -> QueryResult:
        """Read the backtest as of the end of each day that begins in [start, end), ascending.

        Columns: those of backtest_results, strategy_name, version.

        >>> client.results("cross", "2024-01-30", "2024-02-01", version=1).frame["day"].to_list()
        [datetime.date(2024, 1, 30), datetime.date(2024, 1, 31)]
        """
        return ledger_queries.read_ledger(self._store, "backtest_results", strategy, version, start, end)

    # --- declared state and catalogue -------------------------------------------------------------------

    def configuration(self, day: When = None) -> QueryResult:
        """Read the configurations in force on ``day`` (default: today): columns of configurations, by name.

        >>> client.configuration("2024-02-05").frame.select("config_name", "config_value").rows()
        [('ledger.slippage_bps', '3')]
        """
        on = instant(day, "day")
        stored = ledger_queries.read_declared(self._store, "configurations")
        return replace(stored, frame=effective(stored.frame, (on or stored.as_of).date()))

    def strategies(self) -> QueryResult:
        """Read every strategy version, by name and effective date.

        Columns: id, those of strategies, and ``until`` (Date), the first day on which it no longer holds, null if it
        still does.

        >>> client.strategies().frame.select("strategy_name", "version", "until").rows()[0]
        ('cross', 1, datetime.date(2024, 2, 4))
        """
        stored = ledger_queries.read_declared(self._store, "strategies")
        return replace(stored, frame=lifetimes(stored.frame))

    def risk_parameters(self) -> QueryResult:
        """Read every version of the risk parameters, by strategy version and effective date.

        Columns: those of risk_parameters, strategy_name, strategy_version, and ``until`` as in ``strategies``.

        >>> client.risk_parameters().frame["max_open_trades"].to_list()
        [2, 2, 1]
        """
        stored = ledger_queries.read_declared(self._store, "risk_parameters")
        return replace(stored, frame=lifetimes(stored.frame))

    def markets(self) -> QueryResult:
        """Read the stored markets, a row each. Figures come from lineage; no rows are counted.

        Columns: symbol, interval; first_candle and last_candle (opens), newest (end of the last) and its age
        (Duration); candles and days (Int64); complete_through, up to which no day since the first is missing or
        unfinished. Times are UTC. ``newest`` of the result is that of the newest market.

        >>> client.markets().frame.select("symbol", "interval", "days").rows()
        [('BTCUSDT', '1h', 10)]
        """
        as_of, stored = self._store.retrying(
            lambda connection: (catalogue.now(connection), catalogue.markets(connection)),
            "Reading the markets",
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
        return QueryResult(frame.select(*list(schema)[:5], age, *list(schema)[5:]), newest, as_of)
