"""Checks of trade_history: trades follow signals and candles, pay costs on both sides, add up, and respect limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import numpy as np
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
    """Check piece by piece each trade with the candles and the signal around it."""
    if not run.recorded:
        return
    settings = Settings.read(run)
    candles = {window: settings.candles(run, window) for window in run.recorded}
    oldest = _oldest(run, {(market.symbol, market.interval) for market in candles.values()})
    held: dict[Window, list[pl.DataFrame]] = {window: [] for window in run.recorded}
    sample = next(iter(run.recorded))
    for piece in sample.pieces():
        found = read_trades(run, piece, [market.of(piece.first, piece.end) for market in candles.values()])
        for window, market in candles.items():
            trades = found.get(window.strategy_id)
            if trades is None:
                continue
            who = settings.who(window)
            entered = trades.select(day_of(market.interval, market.phase, "entry_time").min()).item()
            costs = settings.costs(entered, piece.end)
            trades = rules.with_terms(trades, market, costs, settings.limits(window.strategy_id))
            first = oldest.get((market.symbol, market.interval))
            run.findings[PLACED].add(rules.misplaced(who, trades, first))
            run.findings[COSTS].add(rules.mischarged(who, trades))
            run.findings[SUMS].add(rules.misadded(who, trades))
            held[window].append(trades.select(list(_HELD)))
            for item in run.findings.values():
                item.seen += trades.height
    states = run.states(run.table, {w.strategy_id: days["day"][-1] for w, days in run.recorded.items()})
    for window, parts in held.items():
        lots = _still_open(states.get(window.strategy_id))
        if parts or lots:
            limits = settings.limits(window.strategy_id).select(pl.col("max_open").max()).item()
            all_parts = pl.concat([pl.DataFrame(schema=_HELD), *parts])
            run.findings[LIMIT].add(rules.crowded(settings.who(window), all_parts, lots, limits))


def read_trades(run: CheckRun, piece: Window, candles: Sequence[Window]) -> dict[int, pl.DataFrame]:
    """Return the trades of a piece of days with id and the market around them, by strategy.

    The added columns are the open of the entry's candle (entry_open), the signal before it (decided), whether a candle
    opens between the two (between), and the open of the candle that opens at the exit (exit_open); null if missing.
    """
    strategies = [window.strategy_id for window in run.recorded]
    who = strategies, piece.first, piece.end
    earliest = run.rows(
        "SELECT min(entry_signal_time) FROM trade_history WHERE strategy_id = ANY(%s) AND day >= %s AND day < %s",
        who,
        {"at": UTC},
    ).item()
    schema = {name: dtype for name, dtype in schema_of("trade_history", generated=True).items() if name[-3:] != "_at"}
    if earliest is None:
        return {}
    hi = max(window.bounds[1] for window in candles)
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
             WHERE h.strategy_id = ANY(%s) AND h.day >= %s AND h.day < %s ORDER BY h.exit_time, h.entry_time"""
    ).format(columns=select_columns(schema, "h"))
    rows = run.store.retrying(
        lambda connection: copy_out(connection, query, [*[earliest, hi] * 4, *who], schema | _AROUND),
        f"Checking {piece}",
    )
    parts = rows.partition_by("strategy_id", as_dict=True, maintain_order=True)
    return {strategy: part for (strategy,), part in parts.items()}


def _oldest(run: CheckRun, markets: Collection[tuple[str, str]]) -> dict[tuple[str, str], datetime | None]:
    """Return the open of each market's first candle after its newest archived month."""
    found = run.rows(
        """SELECT w.symbol, w."interval",
                  greatest((SELECT min(m."timestamp") FROM market_data AS m
                             WHERE m.symbol = w.symbol AND m."interval" = w."interval"),
                           (SELECT max(a.month) + interval '1 month' FROM archived_files AS a
                             WHERE a.table_name = 'market_data' AND a.symbol = w.symbol
                               AND a."interval" = w."interval"))
             FROM unnest(%s::varchar[], %s::varchar[]) AS w (symbol, "interval")""",
        ([symbol for symbol, _ in markets], [interval for _, interval in markets]),
        {"symbol": pl.String(), "interval": pl.String(), "at": UTC},
    )
    return {(symbol, interval): opened for symbol, interval, opened in found.iter_rows()}


def _still_open(state: np.ndarray | None) -> list[tuple[datetime, str]]:
    """Return entry time and side of the trades that are open in a ledger's state."""
    if state is None:
        return []
    account = read_state(state)
    return [(lot.entry_time, account.side) for lot in account.lots]
