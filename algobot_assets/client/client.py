"""The read-only client: what bots, notebooks and reports use to see the tables as Polars frames.

What may be asked belongs here, each answer with the age of the newest data; how it is read, in questions.py.
The client writes nothing, runs nothing and needs no Dagster.

    with connect() as client:
        answer = client.candles("BTCUSDT", "1h", "2024-01-01", "2024-02-01")
        answer.frame      # pl.DataFrame
        answer.age        # how old the newest stored candle of BTCUSDT 1h is
"""

from __future__ import annotations

from dataclasses import asdict, replace

import polars as pl
from pydantic import SecretStr

from algobot_assets.client import queries as questions
from algobot_assets.client.cache import CacheInfo, FrameCache
from algobot_assets.client.queries import Columns
from algobot_assets.client.results import Answer, LatestSignal, When, instant
from algobot_assets.declared.versions import effective, lifetimes
from algobot_assets.schema import frames
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database
from algobot_assets.store.locate import data_database


def connect(
    settings: Settings | None = None, *, database_url: str | None = None, cache_mb: int | None = None
) -> Client:
    """A client of the settings' database, default that of the environment, or of exactly ``database_url``.

    ``cache_mb``: megabytes of frames kept for repeated questions, 0 for none, default ALGOBOT_CLIENT_CACHE_MB.

    Starts the embedded server where it is used and not running; creates nothing in it. Raises SettingsError
    for a URL that is none, StoreError where the database is not there or cannot be reached.
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
    """Read-only access to the tables, safe to share between threads; made by ``connect``, closed by ``with``.

    ``start`` and ``end`` are datetimes, dates or ISO 8601 texts, UTC where they name no zone; ranges are
    half-open and None leaves a side open. A strategy's name stands for its version in force (of a retired one
    the last, of a future one the first); ``version`` names another. Columns have the dtypes of
    schema/frames.py. Raises WindowError for a market, strategy, column or time that cannot be, StoreError where
    the database fails; a known market or strategy without data gives no rows.

    Candles, indicators and signals that are asked for again come from a bounded memory if the database says that
    they are the same still (see ``cache_info``); the age of the data is always asked for.
    """

    def __init__(self, database: Database, archive: str | None = None, cache_mb: int = 0) -> None:
        database.check()  # says at once what is wrong, where the pool would try for seconds
        self._store = Store(database, "client", read_only=True, archive=archive)
        self._cache = FrameCache(cache_mb * 1_000_000)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client of {self._store.database!r}"

    def close(self) -> None:
        """Give the connections back."""
        self._store.close()

    @property
    def cache_info(self) -> CacheInfo:
        """How many questions were answered from memory, and what is held there."""
        return self._cache.info()

    # --- candle by candle -------------------------------------------------------------------------------

    def candles(
        self, symbol: str, interval: str, start: When = None, end: When = None, columns: Columns = None
    ) -> Answer:
        """Candles that open in [start, end), ascending, as Binance published them.

        ``columns`` default to those of market_data without the generated id, created_at and updated_at.
        """
        return questions.by_candle(self._store, self._cache, ("market_data",), symbol, interval, start, end, columns)

    def indicators(
        self, symbol: str, interval: str, start: When = None, end: When = None, columns: Columns = None
    ) -> Answer:
        """Indicators of the candles that open in [start, end), ascending; null while warming."""
        return questions.by_candle(self._store, self._cache, ("indicators",), symbol, interval, start, end, columns)

    def candles_with_indicators(
        self, symbol: str, interval: str, start: When = None, end: When = None, columns: Columns = None
    ) -> Answer:
        """``candles`` with ema, rsi, atr and vwap beside; null also where no indicators are stored."""
        both = ("market_data", "indicators")
        return questions.by_candle(self._store, self._cache, both, symbol, interval, start, end, columns)

    def signals(
        self,
        symbol: str,
        interval: str,
        start: When = None,
        end: When = None,
        strategy: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """Signals of the candles that open in [start, end), ascending: of one strategy version, or of all.

        Columns of signals, strategy_name, version. A version has signals before its effective date too; the
        ledger ignores those.
        """
        return questions.signals(self._store, self._cache, symbol, interval, strategy, version, start, end)

    def latest_signal(self, strategy: str, version: int | None = None) -> LatestSignal:
        """The newest decision of a strategy, with its age and whether it is stale."""
        return questions.latest_signal(self._store, strategy, version)

    # --- the ledger -------------------------------------------------------------------------------------

    def trades(
        self, strategy: str | None = None, start: When = None, end: When = None, version: int | None = None
    ) -> Answer:
        """Trades that closed (exit_time) in [start, end), in that order: of one strategy version, or of all.

        id, columns of trade_history, strategy_name, version.
        """
        return questions.of_ledger(self._store, "trade_history", strategy, version, start, end)

    def metrics(
        self, strategy: str | None = None, start: When = None, end: When = None, version: int | None = None
    ) -> Answer:
        """The figures as of each trade that closed in [start, end), in that order.

        Columns of performance_metrics, strategy_id, entry_time and exit_time of the trade, strategy_name,
        version.
        """
        return questions.of_ledger(self._store, "performance_metrics", strategy, version, start, end)

    def results(
        self, strategy: str | None = None, start: When = None, end: When = None, version: int | None = None
    ) -> Answer:
        """The backtest as of the end of each day that begins in [start, end), ascending.

        Columns of backtest_results, strategy_name, version.
        """
        return questions.of_ledger(self._store, "backtest_results", strategy, version, start, end)

    # --- declared state and catalogue -------------------------------------------------------------------

    def configuration(self, day: When = None) -> Answer:
        """The configurations in force on ``day``, default today: columns of configurations, by name."""
        on = instant(day, "day")
        stored = questions.declared(self._store, "configurations")
        return replace(stored, frame=effective(stored.frame, (on or stored.as_of).date()))

    def strategies(self) -> Answer:
        """Every strategy version, by name and effective date: id, columns of strategies, and ``until`` (Date),
        the first day on which it no longer holds, null where none is known."""
        stored = questions.declared(self._store, "strategies")
        return replace(stored, frame=lifetimes(stored.frame))

    def risk_parameters(self) -> Answer:
        """Every version of the risk parameters, by strategy version and effective date: columns of
        risk_parameters, strategy_name, strategy_version, and ``until`` as in ``strategies``."""
        stored = questions.declared(self._store, "risk_parameters")
        return replace(stored, frame=lifetimes(stored.frame))

    def markets(self) -> Answer:
        """What is stored, a row per market, from lineage: nothing is counted.

        symbol, interval; first_candle and last_candle (opens), newest (end of the last) and its age (Duration);
        candles and days (Int64); complete_through, up to which no day since the first is missing or unfinished.
        Times are UTC. ``newest`` of the answer is that of the newest market.
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
        return Answer(frame.select(*list(schema)[:5], age, *list(schema)[5:]), newest, as_of)
