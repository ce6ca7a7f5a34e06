"""Define the tables: the one source of columns, types, keys, comments and units.

The IO manager, the column metadata in the Dagster catalog, checks and docs derive from this metadata, and a test
compares it with the migrated database.

Where a column deviates from the original nine-table design, because that cannot hold real data or cannot exist in
PostgreSQL, its comment gives the reason.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_natural_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
    }
)

PRICE = sa.Numeric(20, 8)
#: Wider than the original DECIMAL(20,8): volumes of SHIB, PEPE and BTTC have 14 integer digits.
QUANTITY = sa.Numeric(28, 8)
FLOAT: pg.DOUBLE_PRECISION[float] = pg.DOUBLE_PRECISION()
TIME = sa.TIMESTAMP(timezone=True)
SYMBOL = sa.String(24, collation="C")
INTERVAL = sa.String(10, collation="C")

#: Range-partitioned by month of the candle's open; the first is the parent of the others' references.
MONTHLY = ("market_data", "indicators", "signals")
#: The nine tables, in the order in which one follows from another.
NINE = (
    "configurations",
    "strategies",
    "risk_parameters",
    "market_data",
    "indicators",
    "signals",
    "trade_history",
    "performance_metrics",
    "backtest_results",
)
#: Columns that the database fills.
GENERATED = ("id", "created_at", "updated_at")


def _column(
    name: str, kind: Any, comment: str, *constraints: Any, null: bool = False, **options: Any
) -> sa.Column[Any]:
    return sa.Column(name, kind, *constraints, nullable=null, comment=comment, **options)


def _id() -> sa.Column[Any]:
    return sa.Column(
        "id",
        sa.BigInteger,
        sa.Identity(always=True),
        nullable=False,
        comment="Surrogate key; stable when the row is recomputed. BIGINT, as a 32-bit id runs out.",
    )


def _stamps() -> tuple[sa.Column[Any], sa.Column[Any]]:
    now = sa.text("now()")
    return (
        _column("created_at", TIME, "When the row was first written, UTC.", server_default=now),
        _column("updated_at", TIME, "When a value of the row last changed, UTC.", server_default=now),
    )


def _market() -> tuple[sa.Column[Any], sa.Column[Any]]:
    return (
        _column("symbol", SYMBOL, "Binance symbol, e.g. BTCUSDT; USD-M perpetuals end in .UM (BTCUSDT.UM)."),
        _column("interval", INTERVAL, "Binance kline interval: 1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M."),
    )


def _opened() -> sa.Column[Any]:
    return _column("timestamp", TIME, "Open of the candle, UTC. The candle is known at its close, never before.")


def _market_data_id() -> sa.Column[Any]:
    return _column(
        "market_data_id",
        sa.BigInteger,
        "The candle, market_data.id. Referenced leaf to leaf on (market_data_id, timestamp), deleted with it.",
    )


def _strategy_id(comment: str = "The strategy version, strategies.id.") -> sa.Column[Any]:
    return _column("strategy_id", sa.BigInteger, comment, sa.ForeignKey("strategies.id"))


def _day(of: str) -> sa.Column[Any]:
    return _column("day", sa.Date, f"UTC day (the partition) of {of}.")


def _monthly(name: str, comment: str, *items: Any) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        *items,
        sa.PrimaryKeyConstraint("id", "timestamp"),
        comment=comment,
        postgresql_partition_by='RANGE ("timestamp")',
    )


market_data = _monthly(
    "market_data",
    "Candles exactly as Binance published them. Closed candles only; none is ever invented. "
    "Range-partitioned by month of the open.",
    _id(),
    *_market(),
    _opened(),
    _column("open", PRICE, "First price, quote asset."),
    _column("high", PRICE, "Highest price, quote asset."),
    _column("low", PRICE, "Lowest price, quote asset."),
    _column("close", PRICE, "Last price, quote asset."),
    _column("volume", QUANTITY, "Traded base asset. Wider than DECIMAL(20,8), which real volumes overflow."),
    _column(
        "close_time",
        TIME,
        "Close time as published, UTC, floored to the millisecond (archives from 2025 print microseconds). "
        "Not always open + interval - 1 ms: around outages it is early or odd.",
    ),
    _column("quote_asset_volume", QUANTITY, "Traded quote asset. Wider than DECIMAL(20,8)."),
    _column("trades", sa.Integer, "Number of trades."),
    _column("taker_buy_base", QUANTITY, "Base asset bought by takers. Wider than DECIMAL(20,8)."),
    _column("taker_buy_quote", QUANTITY, "Quote asset spent by buying takers. Wider than DECIMAL(20,8)."),
    _column("ignored", QUANTITY, "Twelfth published field, unused by Binance. Wider than DECIMAL(20,8)."),
    *_stamps(),
    sa.UniqueConstraint("symbol", "interval", "timestamp"),
)

indicators = _monthly(
    "indicators",
    "Technical indicators of each candle; NULL while warming. Range-partitioned like market_data.",
    _id(),
    _market_data_id(),
    *_market(),
    _opened(),
    *(
        _column(name, FLOAT, f"{text} DOUBLE PRECISION: float statistics must come back bit-equal.", null=True)
        for name, text in {
            "ema": "Exponential moving average of the close, seeded with its simple mean, quote asset.",
            "rsi": "Relative strength index by Wilder, 0 to 100.",
            "atr": "Average true range by Wilder, quote asset.",
            "vwap": "Volume-weighted average of (high + low + close)/3, quote asset: since 00:00 UTC below 1d, "
            "over the last n candles from 1d on. NULL without volume.",
        }.items()
    ),
    *_stamps(),
    sa.UniqueConstraint("symbol", "interval", "timestamp"),
)

signals = _monthly(
    "signals",
    "The decision of each strategy version at each closed candle. Range-partitioned like market_data.",
    _id(),
    _market_data_id(),
    _strategy_id(),
    *_market(),
    _opened(),
    _column(
        "signal",
        sa.Integer,
        "1 buy, -1 sell, 0 hold; decided at the candle's close, filled at the next candle's open.",
        sa.CheckConstraint("signal IN (-1, 0, 1)", name="signals_signal_check"),
    ),
    *_stamps(),
    sa.UniqueConstraint("symbol", "interval", "strategy_id", "timestamp"),
)

trade_history = sa.Table(
    "trade_history",
    metadata,
    _id(),
    _strategy_id(),
    _day("the candle in which the trade closed"),
    *_market(),
    _column("entry_time", TIME, "Open of the candle whose open filled the entry, UTC."),
    _column(
        "exit_time", TIME, "Fill of the exit, UTC: the candle's open, or its last millisecond for a stop or target."
    ),
    _column("position_type", sa.String(10), "long or short."),
    _column("entry_price", PRICE, "Market price of the entry, quote asset; slippage is kept apart."),
    _column("exit_price", PRICE, "Market price of the exit, quote asset; slippage is kept apart."),
    _column("profit_pct", PRICE, "100 x net_profit / entry notional, percent."),
    _column("duration", PRICE, "From entry to exit, hours."),
    _column("commission_fee", PRICE, "Commission of both sides, quote asset."),
    _column("entry_signal_time", TIME, "Open of the candle that decided the entry, UTC."),
    _column(
        "exit_signal_time",
        TIME,
        "Open of the candle that decided the exit, UTC; NULL for stops and targets.",
        null=True,
    ),
    _column("quantity", QUANTITY, "Traded base asset."),
    _column("gross_profit", PRICE, "Exit notional less entry notional, signed by side, quote asset."),
    _column("net_profit", PRICE, "gross_profit - commission_fee - slippage_cost, quote asset."),
    _column("slippage_cost", PRICE, "Slippage of both sides as money, quote asset."),
    _column(
        "exit_reason", sa.String(20), "Why the trade closed: signal, stop_loss, take_profit, collateral, superseded."
    ),
    _column("ambiguous", sa.Boolean, "True if stop and target lay in one candle and the stop was assumed."),
    *_stamps(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("strategy_id", "entry_time"),
    sa.Index(None, "strategy_id", "entry_time", "exit_time"),
    sa.Index(None, "strategy_id", "day"),
    comment="Closed trades of the simulated ledger; an open position is carried state.",
)


def _figures() -> list[sa.Column[Any]]:
    none = "NULL where undefined, not finite or beyond the type (the original's NOT NULL cannot hold)."
    figures = {
        "total_return": "final/initial - 1, fraction.",
        "annual_return": "(1 + total_return)^(365/days) - 1, fraction; NULL under 30 days.",
        "max_drawdown": "Largest drop from a peak of the marks to a later mark, as a negative fraction.",
        "sharpe_ratio": "Mean/deviation (ddof 1) of daily returns x sqrt(365), no riskless rate; NULL under 30 days.",
        "win_rate": "Trades with net_profit above 0 / closed trades, fraction.",
        "avg_profit_pct": "Mean of the trades' profit_pct, percent.",
        "risk_reward_ratio": "Mean net win / |mean net loss|.",
        "profit_factor": "Sum of net wins / |sum of net losses|.",
    }
    return [
        _column("initial_capital", PRICE, "Equity at the start, quote asset."),
        _column("final_capital", PRICE, "Equity at the last mark, quote asset."),
        *(_column(name, PRICE, f"{text} {none}", null=True) for name, text in figures.items()),
    ]


performance_metrics = sa.Table(
    "performance_metrics",
    metadata,
    _id(),
    _column(
        "trade_id",
        sa.BigInteger,
        "The trade, trade_history.id; deleted with it.",
        sa.ForeignKey("trade_history.id", ondelete="CASCADE"),
    ),
    _day("the trade"),
    *_figures(),
    *_stamps(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("trade_id"),
    sa.Index(None, "day"),
    comment="The strategy's figures from its start to each closed trade.",
)

backtest_results = sa.Table(
    "backtest_results",
    metadata,
    _id(),
    _strategy_id(),
    _day("the figures: as of its end, for today as of the last closed candle"),
    _column("start_date", TIME, "00:00 UTC of the strategy's effective date."),
    _column("end_date", TIME, "End of the day, for today the end of the last closed candle, UTC."),
    *_figures(),
    _column("total_trades", sa.Integer, "Closed trades."),
    _column("winning_trades", sa.Integer, "Closed trades with net_profit above 0."),
    _column("losing_trades", sa.Integer, "Closed trades with net_profit of 0 or less."),
    _column("open_trades", sa.Integer, "Open lots at the end."),
    _column("open_profit", PRICE, "Marks less entry notionals and entry costs of the open lots, quote asset."),
    _column("ambiguous_stops", sa.Integer, "Trades so far in which stop and target lay in one candle."),
    *_stamps(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("strategy_id", "day"),
    comment="Each strategy version's backtest from its start to the end of each day.",
)


def _version(of: str) -> sa.Column[Any]:
    return _column("version", sa.Integer, f"Version of the {of}, counted from 1.", server_default=sa.text("1"))


def _effective() -> sa.Column[Any]:
    return _column("effective_from", sa.Date, "UTC day from which the version holds (the partition).")


configurations = sa.Table(
    "configurations",
    metadata,
    _id(),
    _column("config_name", sa.String(255), "Name of the setting, e.g. indicators.ema_window."),
    _column("config_value", sa.Text, "Its value as text."),
    _version("setting"),
    _effective(),
    *_stamps(),
    sa.PrimaryKeyConstraint("id"),
    # deferred: a version put in between renumbers the later ones
    sa.UniqueConstraint("config_name", "version", deferrable=True, initially="DEFERRED"),
    sa.Index(None, "effective_from"),
    comment="Settings of the computations, by name and version.",
)

strategies = sa.Table(
    "strategies",
    metadata,
    _id(),
    _column("strategy_name", sa.String(255), "Name given by the user; its versions share it."),
    _column("strategy_type", sa.String(255), "Registered function that decides, e.g. ema_cross."),
    *_market(),
    _column("initial_balance", PRICE, "Capital at the start, quote asset."),
    _column("risk_per_trade", PRICE, "Share of equity put at risk by one trade, fraction (0.02 = 2 %)."),
    _version("strategy"),
    _column("parameters", pg.JSONB, "Parameters of the strategy and of its execution."),
    _effective(),
    _column("effective_to", sa.Date, "UTC day from which the version no longer holds; NULL while it does.", null=True),
    *_stamps(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("strategy_name", "effective_from"),
    sa.Index(None, "effective_from"),
    comment="Strategy versions: a new version is a new row that replaces the old from its effective date.",
)

risk_parameters = sa.Table(
    "risk_parameters",
    metadata,
    _id(),
    _strategy_id(),
    _column("max_risk_per_trade", PRICE, "Upper bound of the share of equity at risk, fraction (0.02 = 2 %)."),
    _column("max_open_trades", sa.Integer, "Most lots open at once."),
    _column("stop_loss_percentage", PRICE, "Distance of the stop from the entry, percent (2.0 = 2 %)."),
    _column("take_profit_percentage", PRICE, "Distance of the target from the entry, percent; 0 for none."),
    _version("parameters"),
    _effective(),
    *_stamps(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("strategy_id", "version", deferrable=True, initially="DEFERRED"),
    sa.Index(None, "effective_from"),
    comment="Limits of risk per strategy version.",
)

# --- the platform's own records -------------------------------------------------------------------------

lineage = sa.Table(
    "lineage",
    metadata,
    _column("table_name", sa.String(40, collation="C"), "Which table."),
    _column("symbol", SYMBOL, "Market's symbol; empty for reference tables."),
    _column("interval", INTERVAL, "Market's interval; empty for reference tables."),
    _column("strategy_id", sa.BigInteger, "Strategy version; 0 if the table has none."),
    _column("day", sa.Date, "UTC day (the partition)."),
    _column("rows", sa.Integer, "Rows of the table for this market or strategy and day."),
    _column("input_digest", sa.LargeBinary, "Output digests of the partitions it was computed from, in fixed order."),
    _column("parameters_digest", sa.LargeBinary, "Digest of the settings, strategy, risk and rules in force."),
    _column("code_version", sa.String(40), "Digest of the code that computed it."),
    _column(
        "state_in",
        sa.LargeBinary,
        "Digest of the carried state it started from; NULL if it started empty.",
        null=True,
    ),
    _column(
        "state_out", pg.ARRAY(FLOAT), "Carried state at the end of the day, exact; NULL if there is none.", null=True
    ),
    _column("state_digest", sa.LargeBinary, "Digest of state_out.", null=True),
    _column("output_digest", sa.LargeBinary, "Digest of the day's rows."),
    _column(
        "complete_through",
        TIME,
        "The day is known to be complete up to this time, UTC; the end of the day if all of it is.",
    ),
    _column("run_id", sa.String(40), "Dagster run that wrote it."),
    _column("written_at", TIME, "When, UTC.", server_default=sa.text("now()")),
    sa.PrimaryKeyConstraint("table_name", "symbol", "interval", "strategy_id", "day"),
    # the catalogue asks for these alone; the states beside them are twenty times as large
    sa.Index(
        "lineage_candles_idx",
        "symbol",
        "interval",
        "day",
        postgresql_include=["rows", "complete_through"],
        postgresql_where=sa.text("table_name = 'market_data'"),
    ),
    comment="What every partition of every table was computed from; written in the transaction of its rows.",
)

sources = sa.Table(
    "sources",
    metadata,
    *_market(),
    _column("day", sa.Date, "UTC day of the candles."),
    _column("first_open", TIME, "First candle open that the source covers, UTC."),
    _column("end_open", TIME, "Exclusive end of the opens that it covers, UTC."),
    _column("kind", sa.String(20), "monthly archive, daily archive, rest or file."),
    _column("name", sa.Text, "Archive file name, file name, or endpoint."),
    _column("sha256", sa.LargeBinary, "SHA-256 of the archive or file; NULL for REST.", null=True),
    _column("requested_at", TIME, "Time of the request by the exchange's clock, UTC."),
    _column(
        "note",
        sa.Text,
        "Remark on this range: a corrupt file that was skipped, sources that differ. NULL for none.",
        null=True,
    ),
    sa.PrimaryKeyConstraint("symbol", "interval", "day", "first_open"),
    comment="The source of each range of candles.",
)

gaps = sa.Table(
    "gaps",
    metadata,
    *_market(),
    _column("first_open", TIME, "Open of the first missing candle, UTC."),
    _column("end_open", TIME, "Exclusive end of the missing opens, UTC."),
    _column(
        "reason",
        sa.String(20),
        "listing, outage, halt, delisting, accepted (by a person), or reuse? (perhaps another coin since).",
    ),
    _column("evidence", sa.Text, "The request and its answer."),
    _column("confirmed_at", TIME, "When it was confirmed, UTC.", server_default=sa.text("now()")),
    sa.PrimaryKeyConstraint("symbol", "interval", "first_open"),
    comment="Candles that do not exist, as their source confirmed or a person accepted.",
)

accepted_gaps = sa.Table(
    "accepted_gaps",
    metadata,
    *_market(),
    _column("first_day", sa.Date, "First UTC day whose missing candles are accepted as absent."),
    _column("last_day", sa.Date, "Last such day, included."),
    _column("reason", sa.Text, "Why nobody can supply them, in the words of the person who accepted it."),
    _column("accepted_by", sa.Text, "Who accepted it: user of the operating system and database role."),
    _column("accepted_at", TIME, "When it was accepted, UTC.", server_default=sa.text("now()")),
    sa.PrimaryKeyConstraint("symbol", "interval", "first_day"),
    comment="Stretches of candles that no source answers for and a person has accepted as gaps.",
)

listings = sa.Table(
    "listings",
    metadata,
    *_market(),
    _column("first_open", TIME, "Open of the market's first candle, UTC; it sets the phase of 3d candles."),
    _column("recorded_at", TIME, "When it was recorded, UTC.", server_default=sa.text("now()")),
    sa.PrimaryKeyConstraint("symbol", "interval"),
    comment="The first candle of each market.",
)

symbol_rules = sa.Table(
    "symbol_rules",
    metadata,
    _column("symbol", SYMBOL, "Binance symbol."),
    _column("effective_from", sa.Date, "UTC day on which these rules were first seen; assumed for the days before."),
    _column("status", sa.String(20), "TRADING, HALT, BREAK, ..."),
    _column("tick_size", PRICE, "Step of prices, quote asset; NULL if none is published.", null=True),
    _column("step_size", PRICE, "Step of quantities, base asset; NULL if none is published.", null=True),
    _column("min_notional", PRICE, "Smallest order, quote asset; NULL if none is published.", null=True),
    sa.PrimaryKeyConstraint("symbol", "effective_from"),
    comment="Order rules of each symbol, as published.",
)

dirty_days = sa.Table(
    "dirty_days",
    metadata,
    _column("table_name", sa.String(40, collation="C"), "Which table."),
    _column("symbol", SYMBOL, "Market's symbol; empty if the table has none."),
    _column("interval", INTERVAL, "Market's interval."),
    _column("strategy_id", sa.BigInteger, "Strategy version; 0 if the table has none."),
    _column("day", sa.Date, "UTC day (the partition)."),
    _column("marked_at", TIME, "When, UTC.", server_default=sa.text("now()")),
    sa.PrimaryKeyConstraint("table_name", "symbol", "interval", "strategy_id", "day"),
    comment="Partitions whose rows were changed by hand; cleared when they are recomputed.",
)

code_versions = sa.Table(
    "code_versions",
    metadata,
    _column("table_name", sa.String(40, collation="C"), "Which table."),
    _column("strategy_type", sa.String(255), "Strategy type for signals, else empty."),
    _column(
        "code_version",
        sa.String(40),
        "Digest of the code that computes it now, without layout, comments, docstrings and import paths.",
    ),
    _column("reads_indicators", sa.Boolean, "Whether the strategy reads the stored indicators."),
    sa.PrimaryKeyConstraint("table_name", "strategy_type"),
    comment="The code in force; partitions computed by other code are stale.",
)

exchange = sa.Table(
    "exchange",
    metadata,
    _column(
        "only_row",
        sa.Boolean,
        "Always true: the table holds one row.",
        sa.CheckConstraint("only_row", name="exchange_only_row_check"),
    ),
    _column("name", sa.String(20), "binance or simulated; rows of the two never mix in one database."),
    sa.PrimaryKeyConstraint("only_row"),
    comment="Which exchange the candles of this database come from.",
)

archived_files = sa.Table(
    "archived_files",
    metadata,
    _column("month", sa.Date, "First day of the month (of the candles' opens, UTC) that was archived."),
    _column("table_name", sa.String(40, collation="C"), "Which table: market_data, indicators or signals."),
    *_market(),
    _column("strategy_id", sa.BigInteger, "Strategy version; 0 if the table has none."),
    _column("path", sa.Text, "The Parquet file, relative to the archive (ALGOBOT_ARCHIVE)."),
    _column("rows", sa.Integer, "Rows of the file."),
    _column("first_open", TIME, "Open of its first candle, UTC."),
    _column("last_open", TIME, "Open of its last candle, UTC."),
    _column("bytes", sa.BigInteger, "Size of the file."),
    _column("sha256", sa.LargeBinary, "SHA-256 of the file, checked at every read."),
    _column("content_sha256", sa.LargeBinary, "SHA-256 of the rows' values, ids and stamps included, by time."),
    _column("archived_at", TIME, "When, UTC.", server_default=sa.text("now()")),
    _column("run_id", sa.String(40), "Dagster run that archived it; empty for the command line."),
    sa.PrimaryKeyConstraint("month", "table_name", "symbol", "interval", "strategy_id"),
    comment="Archived months of market_data, indicators and signals, and the files that hold their rows. A month with "
    "a row here has no leaves; its rows are read from the files.",
)

health_history = sa.Table(
    "health_history",
    metadata,
    _column("measure", sa.String(40, collation="C"), "Which figure, e.g. database_bytes."),
    _column("subject", sa.String(100, collation="C"), "Table or market of the figure; empty for the whole database."),
    _column("measured_at", TIME, "When, UTC.", server_default=sa.text("now()")),
    _column("value", FLOAT, "Bytes, rows, seconds or a ratio, as the figure's name says."),
    sa.PrimaryKeyConstraint("measure", "subject", "measured_at"),
    comment="Figures of the database over time: every 15 minutes for the last two weeks, once a day before that.",
)


def _counts() -> list[sa.Column[Any]]:
    return [
        _column("total_trades", sa.Integer, "Closed trades."),
        _column("winning_trades", sa.Integer, "Closed trades with net_profit above 0."),
        _column("losing_trades", sa.Integer, "Closed trades with net_profit of 0 or less."),
        _column("open_trades", sa.Integer, "Open lots at the end."),
        _column("open_profit", PRICE, "Marks less entry notionals and entry costs of the open lots, quote asset."),
        _column("ambiguous_stops", sa.Integer, "Trades in which stop and target lay in one candle."),
    ]


unfilled_signals = sa.Table(
    "unfilled_signals",
    metadata,
    _column(
        "strategy_id",
        sa.BigInteger,
        "Strategy version, strategies.id.",
        sa.ForeignKey("strategies.id", ondelete="CASCADE"),
    ),
    _column("day", sa.Date, "UTC day on which the order would have been filled."),
    _column("below_min_notional", sa.Integer, "The order was worth less than the market's minimum notional."),
    _column("rounded_to_zero", sa.Integer, "The quantity, rounded down to the market's step, was zero."),
    _column("no_capital", sa.Integer, "Free cash paid for less than the smallest order, though risk allowed one."),
    _column("at_max_open_trades", sa.Integer, "As many lots were open as max_open_trades allows."),
    _column("outside_dates", sa.Integer, "Decided before effective_from, or the version ended before the fill."),
    _column("shorting_off", sa.Integer, "A sell signal without an open long, while the strategy does not short."),
    sa.PrimaryKeyConstraint("strategy_id", "day"),
    comment="Signals that led to no order, counted by reason per strategy version and day of its ledger. A day "
    "without a row was computed by a version that did not count them.",
)


def _tried() -> list[sa.Column[Any]]:
    return [
        _column("strategy_type", sa.String(255), "Registered function that decides, e.g. ema_cross."),
        *_market(),
        _column("first_day", sa.Date, "First UTC day of trading."),
        _column("last_day", sa.Date, "Last UTC day."),
        _column("grid", pg.JSONB, "Every parameter of the strategy and of the risk with the values it takes."),
        _column(
            "settings",
            pg.JSONB,
            "Settings that all combinations share: balance, shorting, costs and order rules by day.",
        ),
        _column("combinations", sa.Integer, "Number of combinations."),
        _column("key", sa.LargeBinary, "Digest of candles, indicators, settings, grid and code."),
        _column("created_at", TIME, "When it started, UTC.", server_default=sa.text("now()")),
        _column("finished_at", TIME, "When its last result was stored, UTC; NULL until it is complete.", null=True),
    ]


def _combination(null: bool = False) -> list[sa.Column[Any]]:
    return [
        _column("combination", sa.Integer, "Its number in the grid, from 0, last axis fastest.", null=null),
        _column("parameters", pg.JSONB, "The strategy's parameters.", null=null),
        _column("risk", pg.JSONB, "The risk parameters.", null=null),
    ]


sweeps = sa.Table(
    "sweeps",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False, comment="Surrogate key."),
    *_tried(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("key"),
    comment="Parameter sweeps: one strategy on one market over a grid. Delete a row to delete its results.",
)

sweep_results = sa.Table(
    "sweep_results",
    metadata,
    _column("sweep_id", sa.BigInteger, "The sweep, sweeps.id.", sa.ForeignKey("sweeps.id", ondelete="CASCADE")),
    *_combination(),
    *_figures(),
    *_counts(),
    sa.PrimaryKeyConstraint("sweep_id", "combination"),
    comment="The backtest of each combination over the sweep's days, bit for bit that of the strategy run alone.",
)

walk_forwards = sa.Table(
    "walk_forwards",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False, comment="Surrogate key."),
    *_tried(),
    _column("metric", sa.String(40), "Figure by which parameters were chosen, the greatest first."),
    _column("train_days", sa.Integer, "Days of a train window; of the first one if anchored."),
    _column("test_days", sa.Integer, "Days of a test window; the last may be shorter."),
    _column("anchored", sa.Boolean, "True if every train window starts on first_day and grows."),
    _column(
        "deflated_sharpe",
        PRICE,
        "Probability that the joined result's Sharpe ratio is above the best of as many by luck (Bailey and Lopez de "
        "Prado 2014); NULL if undefined.",
        null=True,
    ),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("key"),
    comment="Walk-forwards: parameters chosen on train windows, tried on the test windows after them.",
)

walk_forward_windows = sa.Table(
    "walk_forward_windows",
    metadata,
    _column(
        "walk_forward_id", sa.BigInteger, "walk_forwards.id.", sa.ForeignKey("walk_forwards.id", ondelete="CASCADE")
    ),
    _column("number", sa.Integer, "Number of the window from 1; 0: all test windows joined, one account throughout."),
    _column("train_first", sa.Date, "First day of the train window; NULL for the joined result.", null=True),
    _column("train_end", sa.Date, "Day after its last; NULL for the joined result.", null=True),
    _column("test_first", sa.Date, "First day of the test window."),
    _column("test_end", sa.Date, "Day after its last."),
    *_combination(null=True),
    _column("train_metric", PRICE, "The chosen combination's figure in the train window.", null=True),
    _column(
        "train_deflated_sharpe",
        PRICE,
        "Probability that its Sharpe ratio in the train window is above the best of as many by luck.",
        null=True,
    ),
    *_figures(),
    *_counts(),
    sa.PrimaryKeyConstraint("walk_forward_id", "number"),
    comment="Results of the test windows, each from a flat account; number 0 is all of them joined.",
)

walk_forward_equity = sa.Table(
    "walk_forward_equity",
    metadata,
    _column(
        "walk_forward_id", sa.BigInteger, "walk_forwards.id.", sa.ForeignKey("walk_forwards.id", ondelete="CASCADE")
    ),
    _column("day", sa.Date, "UTC day of a test window."),
    _column("number", sa.Integer, "Number of the window."),
    _column("equity", PRICE, "Equity of the joined account at the end of the day, quote asset."),
    sa.PrimaryKeyConstraint("walk_forward_id", "day"),
    comment="The equity curve of the joined test windows.",
)
