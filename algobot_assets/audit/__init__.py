"""Find what is stale or missing, prove what is stored, and explain it."""
