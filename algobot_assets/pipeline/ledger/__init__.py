"""Run the simulated ledger and compute its three tables."""
