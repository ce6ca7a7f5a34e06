"""trade_history, performance_metrics and backtest_results: the tables of the simulated ledger."""

from __future__ import annotations

from algobot_assets.defs.table_asset import table_asset
from algobot_assets.pipeline.ledger import tables as ledger_tables
from algobot_assets.pipeline.retired_versions import remove_retired_results

trade_history = table_asset(
    group="trading",
    kinds=("polars", "numba"),
    description="Closed trades of the simulated ledger: decided at a close, filled at the next open, sized by risk, "
    "with fees on both sides. Open trades are carried state.",
    code_version=ledger_tables.CODE_VERSION,
    before=remove_retired_results,
)(ledger_tables.trade_history)

performance_metrics = table_asset(
    group="trading",
    kinds=("polars", "numba"),
    description="Performance of a strategy from its start to each closed trade.",
    code_version=ledger_tables.CODE_VERSION,
)(ledger_tables.performance_metrics)

backtest_results = table_asset(
    group="trading",
    kinds=("polars", "numba"),
    description="Backtest of each strategy version from its start to the end of each day.",
    code_version=ledger_tables.CODE_VERSION,
)(ledger_tables.backtest_results)
