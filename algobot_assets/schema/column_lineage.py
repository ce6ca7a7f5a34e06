"""List the columns that each column is computed from, for Dagster's catalog.

A key that refers to another row counts as coming from it. Settings count if they change the value.
"""

from __future__ import annotations

Source = tuple[str, str]

_SAME = ("symbol", "interval", "timestamp")


def _of(table: str, *columns: str) -> tuple[Source, ...]:
    return tuple((table, column) for column in columns)


_SETTINGS = _of("configurations", "config_value")
_OPENED = _of("market_data", "timestamp")
_PRICES = _of("market_data", "open", "high", "low", "close")
_LEVELS = _of("risk_parameters", "stop_loss_percentage", "take_profit_percentage")
_RISK = (*_of("risk_parameters", "max_risk_per_trade", "max_open_trades"), *_LEVELS)
_SIZED = (*_of("strategies", "initial_balance", "risk_per_trade"), *_RISK)
_SIGNAL = _of("signals", "signal")
_MARKED = (*_of("trade_history", "net_profit"), *_of("market_data", "close"), *_of("strategies", "initial_balance"))
_TRADES = _of("trade_history", "net_profit")

_CHILD = {"market_data_id": _of("market_data", "id"), **{name: _of("market_data", name) for name in _SAME}}
_FIGURES: dict[str, tuple[Source, ...]] = {
    "initial_capital": _of("strategies", "initial_balance"),
    **dict.fromkeys(("final_capital", "total_return", "annual_return", "max_drawdown", "sharpe_ratio"), _MARKED),
    "avg_profit_pct": _of("trade_history", "profit_pct"),
    **dict.fromkeys(("win_rate", "risk_reward_ratio", "profit_factor"), _TRADES),
}

#: table -> column -> the columns it is computed from.
COLUMN_LINEAGE: dict[str, dict[str, tuple[Source, ...]]] = {
    "risk_parameters": {"strategy_id": _of("strategies", "id")},
    "indicators": {
        **_CHILD,
        "ema": (*_of("market_data", "close"), *_SETTINGS),
        "rsi": (*_of("market_data", "close"), *_SETTINGS),
        "atr": (*_of("market_data", "high", "low", "close"), *_SETTINGS),
        "vwap": (*_of("market_data", "high", "low", "close", "volume"), *_SETTINGS),
    },
    "signals": {
        **_CHILD,
        "strategy_id": _of("strategies", "id"),
        "signal": (
            *_PRICES,
            *_of("market_data", "volume"),
            *_of("indicators", "ema", "rsi", "atr", "vwap"),
            *_of("strategies", "strategy_type", "parameters"),
        ),
    },
    "trade_history": {
        "strategy_id": _of("strategies", "id"),
        "symbol": _of("strategies", "symbol"),
        "interval": _of("strategies", "interval"),
        "day": _OPENED,
        "entry_time": (*_OPENED, *_SIGNAL),
        "exit_time": (*_OPENED, *_SIGNAL, *_PRICES, *_LEVELS),
        "position_type": _SIGNAL,
        "entry_price": _of("market_data", "open"),
        "exit_price": (*_PRICES, *_SIGNAL, *_LEVELS),
        "quantity": (*_PRICES, *_SIZED),
        "gross_profit": (*_PRICES, *_SIZED),
        "commission_fee": (*_PRICES, *_SIZED, *_SETTINGS),
        "slippage_cost": (*_PRICES, *_SIZED, *_SETTINGS),
        "net_profit": (*_PRICES, *_SIZED, *_SETTINGS),
        "profit_pct": (*_PRICES, *_SIZED, *_SETTINGS),
        "duration": _OPENED,
        "entry_signal_time": _of("signals", "timestamp", "signal"),
        "exit_signal_time": _of("signals", "timestamp", "signal"),
        "exit_reason": (*_SIGNAL, *_PRICES, *_LEVELS, *_of("strategies", "effective_to")),
        "ambiguous": (*_of("market_data", "high", "low"), *_LEVELS),
    },
    "performance_metrics": {
        "trade_id": _of("trade_history", "id"),
        "day": _of("trade_history", "day"),
        **_FIGURES,
    },
    "backtest_results": {
        "strategy_id": _of("strategies", "id"),
        "start_date": _of("strategies", "effective_from"),
        "end_date": _OPENED,
        **_FIGURES,
        **dict.fromkeys(("total_trades", "winning_trades", "losing_trades"), _TRADES),
        "open_trades": _SIGNAL,
        "open_profit": (*_PRICES, *_SIZED),
        "ambiguous_stops": _of("trade_history", "ambiguous"),
    },
}
