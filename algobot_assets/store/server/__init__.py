"""Run the embedded PostgreSQL server."""
