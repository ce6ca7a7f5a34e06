"""Move old months to the archive, and restore them."""
