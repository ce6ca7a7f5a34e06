"""Choose the database of the settings: the one at a URL, else the one on the embedded server."""

from __future__ import annotations

from dataclasses import replace

from algobot_assets.settings import Settings
from algobot_assets.store.database import Database


def resolve(settings: Settings) -> Database:
    """Return the database at the settings' URL, or the one on the embedded server, which is started if needed."""
    if settings.database_url is not None:
        return Database.from_url(settings)
    from algobot_assets.store.server.control import ensure_running  # POSIX only, a URL works everywhere

    return ensure_running(settings)


def data_database(settings: Settings, *, create: bool = True) -> Database:
    """Return the database of the tables; simulated candles have a database of their own.

    Real and simulated rows are thus never mixed. ``create`` makes the database if it is missing.
    """
    database = resolve(settings)
    if settings.exchange == "simulated":
        database = replace(database, name=f"{database.name}_simulated")
    if create:
        database.ensure_database()
    return database
