"""Candles, indicators and signals: the tables with one row per candle."""

from __future__ import annotations

from algobot_assets.compute.code_version import indicators_code_version, strategy_code_version
from algobot_assets.compute.strategies import strategy_types
from algobot_assets.defs.table_asset import CandleConfig, table_asset
from algobot_assets.pipeline import indicators as indicator_rows
from algobot_assets.pipeline import signals as signal_rows
from algobot_assets.pipeline.candles import market_data as candle_rows
from algobot_assets.pipeline.retired_versions import remove_retired_results

market_data = table_asset(
    group="market",
    kinds=("python",),
    description="Closed candles exactly as Binance published them, one row per market and open time. Complete days are "
    "not fetched again. Gaps confirmed by the source are recorded in `gaps`.",
    code_version=candle_rows.CODE_VERSION,
    config_class=CandleConfig,
    pool="exchange",
)(candle_rows.market_data)

indicators = table_asset(
    group="market",
    kinds=("polars",),
    description="ema, rsi, atr and vwap of every candle. Carried state makes a new day cost one day, and results do "
    "not depend on how it is run. Windows come from `configurations`.",
    code_version=indicators_code_version(),
)(indicator_rows.indicators)

signals = table_asset(
    group="market",
    kinds=("polars",),
    description="The decision of every strategy version at each closed candle: 1 buy, -1 sell, 0 hold. Covers all "
    "candles; the ledger ignores those before the version's effective date.",
    code_version="-".join(strategy_code_version(kind)[:4] for kind in strategy_types()),
    before=remove_retired_results,
)(signal_rows.signals)
