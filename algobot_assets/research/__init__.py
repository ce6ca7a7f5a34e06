"""Try, sweep and walk forward strategies on stored candles."""
