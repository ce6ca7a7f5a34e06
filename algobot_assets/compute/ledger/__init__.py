"""The simulated account: orders, fills, costs, lots and trades."""
