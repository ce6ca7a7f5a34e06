"""Plan, read, compute and write the days of many markets."""
