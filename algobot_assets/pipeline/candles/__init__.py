"""Fetch and store candles, and record the origin of each stretch and its gaps."""
