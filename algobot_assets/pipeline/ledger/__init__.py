"""The simulated ledger: its inputs, and the three tables that follow from it."""
