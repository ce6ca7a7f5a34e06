"""PostgreSQL: connections, COPY, windows, lineage, roles."""
