"""Reading whole tables for comparisons between databases: content in order, floats as bits, no surrogate keys."""

from __future__ import annotations

from typing import Any

import psycopg

COLUMNS = {
    "market_data": 'symbol, "interval", "timestamp", open, high, low, close, volume, close_time, quote_asset_volume, '
    "trades, taker_buy_base, taker_buy_quote, ignored",
    "indicators": 'symbol, "interval", "timestamp", float8send(ema), float8send(rsi), float8send(atr), float8send(vwap)',
    "signals": 's.strategy_name, s.version, t.symbol, t."interval", "timestamp", signal',
    "trade_history": "s.strategy_name, s.version, day, entry_time, exit_time, position_type, entry_price, exit_price, "
    "profit_pct, duration, commission_fee, entry_signal_time, exit_signal_time, quantity, gross_profit, net_profit, "
    "slippage_cost, exit_reason, ambiguous",
    "performance_metrics": "s.strategy_name, s.version, h.entry_time, t.day, initial_capital, final_capital, total_return, "
    "annual_return, max_drawdown, sharpe_ratio, win_rate, avg_profit_pct, risk_reward_ratio, profit_factor",
    "backtest_results": "s.strategy_name, s.version, day, start_date, end_date, initial_capital, final_capital, "
    "total_return, annual_return, max_drawdown, sharpe_ratio, win_rate, avg_profit_pct, risk_reward_ratio, "
    "profit_factor, total_trades, winning_trades, losing_trades, open_trades, open_profit, ambiguous_stops",
    "lineage": "table_name, l.symbol, l.\"interval\", coalesce(s.strategy_name, ''), coalesce(s.version, 0), day, rows, input_digest, "
    "code_version, state_in, state_digest, output_digest, complete_through",
}
SOURCES = {
    "signals": "signals AS t JOIN strategies AS s ON s.id = t.strategy_id",
    "trade_history": "trade_history AS t JOIN strategies AS s ON s.id = t.strategy_id",
    "backtest_results": "backtest_results AS t JOIN strategies AS s ON s.id = t.strategy_id",
    "performance_metrics": "performance_metrics AS t JOIN trade_history AS h ON h.id = t.trade_id "
    "JOIN strategies AS s ON s.id = h.strategy_id",
    "lineage": "lineage AS l LEFT JOIN strategies AS s ON s.id = l.strategy_id "
    "WHERE table_name NOT IN ('configurations', 'strategies', 'risk_parameters')",
}


def content(url: str, tables: tuple[str, ...] = tuple(COLUMNS)) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table, in order."""
    with psycopg.connect(url) as connection:
        return {
            table: connection.execute(
                f"SELECT {COLUMNS[table]} FROM {SOURCES.get(table, table)} "
                f"ORDER BY {', '.join(str(i + 1) for i in range(6))}"
            ).fetchall()
            for table in tables
        }


def counts(url: str) -> dict[str, int]:
    """Rows of the nine tables."""
    with psycopg.connect(url) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in (*list(COLUMNS)[:-1], "configurations", "strategies", "risk_parameters")
        }
