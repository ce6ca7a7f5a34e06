"""Find stale or missing data, verify stored data, and explain trades."""
