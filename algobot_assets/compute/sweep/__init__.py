"""Many combinations of parameters over the same candles."""
