"""Store tables in PostgreSQL: connections, COPY, windows, lineage, roles."""
