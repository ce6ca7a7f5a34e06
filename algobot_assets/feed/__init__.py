"""Fetch candles from Binance's REST API and archive, a folder, or the simulated exchange."""
