"""Where candles come from: Binance's REST and archive, a folder, or the simulated exchange."""
