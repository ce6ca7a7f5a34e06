"""Rules of the asset checks, as plain functions on frames."""
