"""How each table follows from those before it, without Dagster."""
