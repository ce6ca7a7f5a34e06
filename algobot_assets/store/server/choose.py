"""Choose the database that the settings mean: the one at a URL, else the one on the embedded server."""

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
    """Return the database of the tables; simulated candles have one of their own beside it.

    Real and simulated rows thus never meet. ``create`` makes the database if it is missing.
    """
    database = resolve(settings)
    if settings.exchange == "simulated":
        database = replace(database, name=f"{database.name}_simulated")
    if create:
        database.ensure_database()
    return database
