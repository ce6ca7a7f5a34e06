"""The assets. ``TABLES`` are the nine tables, upstream tables first."""

from __future__ import annotations

from algobot_assets.defs.assets import market, reference, trading

TABLES = (
    reference.configurations,
    reference.strategies,
    reference.risk_parameters,
    market.market_data,
    market.indicators,
    market.signals,
    trading.trade_history,
    trading.performance_metrics,
    trading.backtest_results,
)
