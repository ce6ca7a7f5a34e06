"""Pure functions on frames: indicators, strategies, the ledger, metrics, sweeps."""
