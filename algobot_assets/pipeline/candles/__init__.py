"""How candles are fetched and stored: what is missing, where each stretch came from, and gaps."""
