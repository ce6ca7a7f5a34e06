"""Compute each table from those before it, without Dagster."""
