"""Migrate a database to the schema that this code expects, and list the differences from it.

Alembic's revisions are in migrations/versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.schema import SetColumnComment, SetTableComment

from algobot_assets.errors import StoreError
from algobot_assets.schema.tables import metadata
from algobot_assets.settings import Settings
from algobot_assets.store import roles
from algobot_assets.store.connection import explain
from algobot_assets.store.server.choose import data_database

#: Key of the advisory lock that lets one migration run at a time ("algobot" in ASCII, as a number).
MIGRATION_LOCK = 0x616C676F626F74
#: In a checkout a link to the folder migrations/ at its top, in a wheel a copy.
_FOLDER = Path(__file__).parents[1] / "_migrations"


def is_declared(_object: Any, name: str | None, kind: str, reflected: bool, _compare_to: Any) -> bool:
    """Return False for tables that the metadata lacks: the monthly partitions and Alembic's own table."""
    return not (kind == "table" and reflected and name not in metadata.tables)


def engine_of(url: str | None = None) -> sa.Engine:
    """Return a SQLAlchemy engine without a pool for ``url``, by default the settings' data database."""
    if url is None:
        url = data_database(Settings()).sqlalchemy_url()
    return sa.create_engine(url, poolclass=sa.NullPool)


def _config(connection: sa.Connection | None = None) -> Config:
    if not _FOLDER.is_dir():
        raise StoreError(f"The migrations are missing ({_FOLDER}). Install algobot_assets again.")
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(url: str | None = None, revision: str = "head") -> None:
    """Run the revisions that the database lacks, in one transaction. Concurrent calls wait for one another.

    At the head, also set the comments, and create the roles and grant their rights if the login may. StoreError if
    the server refuses.
    """
    try:
        with engine_of(url).begin() as connection:
            command.upgrade(_config(connection), revision)
            if revision == "head":
                _apply_comments(connection)
                driver = connection.connection.driver_connection
                if not isinstance(driver, psycopg.Connection):
                    raise TypeError(f"migrations need psycopg, not {type(driver).__name__}")
                roles.establish(driver)
    except sa.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        raise StoreError(explain(error.orig, "The migration")) from error


def _apply_comments(connection: sa.Connection) -> None:
    """Set every table's and column's comment from the metadata, so that they are defined in one place."""
    for table in metadata.sorted_tables:
        connection.execute(SetTableComment(table))
        for column in table.columns:
            connection.execute(SetColumnComment(column))


def downgrade(url: str | None = None, revision: str = "base") -> None:
    """Undo revisions down to ``revision``; ``base`` leaves nothing of the project in the database."""
    with engine_of(url).begin() as connection:
        command.downgrade(_config(connection), revision)


def differences(url: str | None = None) -> list[Any]:
    """Return the differences between database and metadata (tables, columns, types, comments, keys, indexes)."""
    with engine_of(url).connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_object": is_declared, "compare_type": True, "target_metadata": metadata},
        )
        found: list[Any] = compare_metadata(context, metadata)
        return found


def current_and_head(url: str | None = None) -> tuple[str | None, str | None]:
    """Return the database's revision (None if it has none) and the newest one of this code."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with engine_of(url).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision(), head
