"""algobot_assets: the data platform of a trading bot for Binance, as Dagster assets in PostgreSQL."""

__version__ = "0.1.0"
