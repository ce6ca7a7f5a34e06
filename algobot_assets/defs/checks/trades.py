"""Checks of trade_history: trades follow signals and candles, pay costs on both sides, add up, and respect limits."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
from psycopg import sql

from algobot_assets.audit.rules import trades as rules
from algobot_assets.audit.rules.check_run import CheckRun
from algobot_assets.audit.rules.ledger_terms import Settings
from algobot_assets.compute.ledger.state import read_state
from algobot_assets.defs.checks.factory import define_checks
from algobot_assets.schema.frames import PRICE, UTC, schema_of
from algobot_assets.schema.intervals import day_of
from algobot_assets.schema.windows import Window
from algobot_assets.store.copy import copy_out, select_columns

PLACED, COSTS, SUMS, LIMIT = "trades_follow_signals", "both_sides_pay", "profits_add_up", "open_trades_within_limit"
_HELD = {
    "entry_time": UTC,
    "exit_time": UTC,
    "position_type": pl.String(),
    "max_open": pl.Int32(),
    "day": pl.Date(),
}
_AROUND = {
    "entry_open": PRICE,
    "decided": pl.Int32(),
    "between": pl.Boolean(),
    "exit_open": PRICE,
}


@define_checks(
    "trade_history",
    {
        PLACED: "Exits come after entries. An entry follows a signal of its strategy and fills at the open of the next "
        "existing candle. An exit by signal fills at an open.",
        COSTS: "commission_fee and slippage_cost cover both sides, each on its own rounded notional, at the rates in "
        "force on its day.",
        SUMS: "net_profit = gross_profit - costs, to the last digit; gross_profit, profit_pct and duration are right.",
        LIMIT: "At most max_open_trades trades are open at once, by the limit at their entry, and all on one side.",
    },
)
def checks(run: CheckRun) -> None:
    """Check month by month each trade with the candles and the signal around it."""
    settings = Settings.read(run)
    for window, days in run.recorded():
        who, candles = settings.who(window), settings.candles(run, window)
        oldest = _oldest(run, candles)
        parts = []
        for month in window.pieces():
            trades = read_trades(run, month, candles.of(month.first, month.end))
            if trades.is_empty():
                continue
            entered = trades.select(day_of(candles.interval, candles.phase, "entry_time").min()).item()
            costs = settings.costs(entered, month.end)
            trades = rules.with_terms(trades, candles, costs, settings.limits(window.strategy_id))
            run.findings[PLACED].add(rules.misplaced(who, trades, oldest))
            run.findings[COSTS].add(rules.mischarged(who, trades))
            run.findings[SUMS].add(rules.misadded(who, trades))
            parts.append(trades.select(list(_HELD)))
            for found in run.findings.values():
                found.seen += trades.height
        last: date = days.select(pl.col("day").max()).item()
        lots = _still_open(run, window, last)
        limits = settings.limits(window.strategy_id)
        held = pl.concat([pl.DataFrame(schema=_HELD), *parts])
        run.findings[LIMIT].add(rules.crowded(who, held, lots, limits.select(pl.col("max_open").max()).item()))


def read_trades(run: CheckRun, window: Window, candles: Window) -> pl.DataFrame:
    """Return the window's trades with id and the market around them.

    The added columns are the open of the entry's candle (entry_open), the signal before it (decided), whether a candle
    opens between the two (between), and the open of the candle that opens at the exit (exit_open); null if missing.
    """
    who = window.strategy_id, window.first, window.end
    earliest = run.rows(
        "SELECT min(entry_signal_time) FROM trade_history WHERE strategy_id = %s AND day >= %s AND day < %s",
        who,
        {"at": UTC},
    ).item()
    schema = {name: dtype for name, dtype in schema_of("trade_history", generated=True).items() if name[-3:] != "_at"}
    if earliest is None:
        return pl.DataFrame(schema=schema | _AROUND)
    hi = candles.bounds[1]
    market = '{0}.symbol = h.symbol AND {0}."interval" = h."interval" AND {0}."timestamp" BETWEEN %s AND %s'
    query = sql.SQL(
        f"""SELECT {{columns}}, e.open, s.signal, EXISTS (
                       SELECT FROM market_data AS b
                        WHERE {market.format("b")}
                          AND b."timestamp" > h.entry_signal_time AND b."timestamp" < h.entry_time), x.open
              FROM trade_history AS h
              LEFT JOIN market_data AS e ON {market.format("e")} AND e."timestamp" = h.entry_time
              LEFT JOIN signals AS s ON {market.format("s")} AND s.strategy_id = h.strategy_id
                   AND s."timestamp" = h.entry_signal_time
              LEFT JOIN market_data AS x ON {market.format("x")}
                   AND x."timestamp" = h.exit_time
             WHERE h.strategy_id = %s AND h.day >= %s AND h.day < %s ORDER BY h.exit_time, h.entry_time"""
    ).format(columns=select_columns(schema, "h"))
    return run.store.retrying(
        lambda connection: copy_out(connection, query, [*[earliest, hi] * 4, *who], schema | _AROUND),
        f"Checking {window}",
    )


def _oldest(run: CheckRun, candles: Window) -> datetime | None:
    """Return the open of the first candle after the newest archived month."""
    found = run.rows(
        """SELECT greatest(min("timestamp"),
                           (SELECT max(month) + interval '1 month' FROM archived_files
                             WHERE table_name = 'market_data' AND symbol = %s AND "interval" = %s))
             FROM market_data WHERE symbol = %s AND "interval" = %s""",
        (candles.symbol, candles.interval) * 2,
        {"at": UTC},
    )
    moment: datetime | None = found.item()
    return moment


def _still_open(run: CheckRun, window: Window, last: date) -> list[tuple[datetime, str]]:
    """Return entry time and side of the trades that are open at the end of the run's last day."""
    state = run.handle().lineage(window.of(last, window.end))[last].state_out
    if state is None:
        return []
    account = read_state(state)
    return [(lot.entry_time, account.side) for lot in account.lots]
