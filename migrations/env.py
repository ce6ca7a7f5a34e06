"""Alembic's environment: which database is migrated, and what of it Alembic may see.

The revisions are written by hand: partitions are made by functions of the database, so autogenerate must not
see them. Run through ``algobot_assets.store.migrate``; ``alembic -c migrations/alembic.ini`` works too and takes
the database from ALGOBOT_DATABASE_URL or the embedded server.
"""

from __future__ import annotations

from alembic import context

from algobot_assets.schema.tables import metadata
from algobot_assets.store.migrate import MIGRATION_LOCK, engine_of, is_declared


def run() -> None:
    """Migrate online, one transaction for all revisions, one migration at a time."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    with engine_of().connect() as connection:
        _migrate(connection)
        connection.commit()


def _migrate(connection) -> None:
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=is_declared,
        compare_type=True,
        compare_server_default=False,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
